"""Networks as ncnn models: 3x3 convolutions by Winograd's algorithm, at less than half of the multiplications.

ncnn's points of interpolation (Tencent/ncnn, F(4x4, 3x3)) keep the rounding as small as that of a direct convolution.
It works on one image at a time: a batch is spread over the threads image by image, a lone image layer by layer.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from restore_env.cores import Cores
from tools_zoo.networks import completed
from tools_zoo.parity import ParityError

INPUT = "images"
"""The name of a model's input, one float32 RGB image ``(3, H, W)`` in [0, 1]."""

Pixels: TypeAlias = npt.NDArray[np.float32]

_TRACED_SHAPE = (1, 3, 64, 64)
_MAGIC = "7767517"  # what ncnn's text files begin with
_RAW = b"\0\0\0\0"  # weights follow as they are: float32


@dataclass(frozen=True)
class NcnnModel:
    """A network in ncnn's own form, for images of any size whose sides are multiples of ``multiple``."""

    layers: str
    """The text of a ``.param`` file; the input is called :data:`INPUT`."""
    weights: bytes
    """What a ``.bin`` file holds."""
    output: str
    """The name of the result."""
    multiple: int


def ncnn_model(network: nn.Module) -> NcnnModel:
    """Convert a network that keeps the image's size.

    That the results are those of the network is for :func:`tools_zoo.parity.check_parity` to say.

    Args:
        network: on the CPU, made of plain convolutions, ReLU, sums, products, means and pixel-shuffles. If it has an
            attribute ``multiple``, it completes sides that are no multiple of it, as
            :func:`tools_zoo.networks.completed` does.

    Raises:
        ParityError: it has something else in it, or layers that depend on values.
    """
    multiple = int(getattr(network, "multiple", 1))
    writer = _Writer(type(network).__name__, _traced(network))
    for node in writer.traced.graph.nodes:
        writer.add(node)
    return writer.model(multiple)


def _traced(network: nn.Module) -> fx.GraphModule:
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with torch.no_grad():
            return make_fx(network, pre_dispatch=True)(torch.zeros(_TRACED_SHAPE))
    except Exception as error:  # of the tracer's many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ParityError(f"{type(network).__name__} cannot be converted to ncnn: {reason}") from None


class _Writer:
    """Turns the operations of a traced network into ncnn's layers, in their order."""

    def __init__(self, network: str, traced: fx.GraphModule) -> None:
        self._network, self.traced = network, traced
        self._blobs: dict[fx.Node, str] = {}
        self._layers: list[tuple[str, list[str], str, dict[int, float]]] = []
        self._weights: list[bytes] = []
        self._output = ""

    def add(self, node: fx.Node) -> None:
        """One operation."""
        if node.op == "placeholder":
            self._layer("Input", [], node, {}, INPUT)
        elif node.op == "output":
            self._output = self._blobs[node.args[0]]  # type: ignore[index]
        elif node.op == "call_function":
            add = _OPERATIONS.get(str(node.target))
            if add is None:
                raise self._refusal(str(node.target))
            add(self, node, *node.args, **node.kwargs)

    def model(self, multiple: int) -> NcnnModel:
        """The layers that were added; a result that several take is handed out by a layer of its own."""
        users: dict[str, int] = {}
        for _, inputs, _, _ in self._layers:
            for name in inputs:
                users[name] = users.get(name, 0) + 1
        handed = dict.fromkeys(users, 0)
        lines = []
        blobs = len(self._layers)

        def taken(name: str) -> str:
            if users[name] == 1:
                return name
            handed[name] += 1
            return f"{name}.{handed[name]}"

        for kind, inputs, output, options in self._layers:
            values = " ".join(f"{key}={value}" for key, value in options.items())
            names = " ".join([*map(taken, inputs), output])
            lines.append(f"{kind} {output} {len(inputs)} 1 {names} {values}".rstrip())
            count = users.get(output, 0)
            if count > 1:
                copies = " ".join(f"{output}.{number + 1}" for number in range(count))
                lines.append(f"Split {output}.split 1 {count} {output} {copies}")
                blobs += count
        text = "\n".join([_MAGIC, f"{len(lines)} {blobs}", *lines, ""])
        return NcnnModel(text, b"".join(self._weights), self._output, multiple)

    def convolve(
        self,
        node: fx.Node,
        images: fx.Node,
        weight: fx.Node,
        bias: fx.Node | None = None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> None:
        """A convolution, with its bias and, if nothing else looks at what comes of it, the ReLU behind it."""
        if groups != 1 or isinstance(padding, str):
            raise ParityError(
                f"{self._network} cannot be converted to ncnn: a convolution in groups, or padded by name"
            )
        values = self._tensor(weight)
        outputs, _, height, width = values.shape
        options: dict[int, float] = {0: outputs, 1: width, 11: height, 2: dilation[1], 12: dilation[0]}
        options |= {3: stride[1], 13: stride[0], 4: padding[1], 14: padding[0], 5: int(bias is not None)}
        options |= {6: values.numel()}
        follower = next(iter(node.users)) if len(node.users) == 1 else None
        fused = follower is not None and str(follower.target) in _RELU
        self._layer("Convolution", [images], node, options | ({9: 1} if fused else {}))
        if fused and follower is not None:
            self._blobs[follower] = self._blobs[node]
        self._weights += [_RAW, _bytes(values)]
        if bias is not None:
            self._weights.append(_bytes(self._tensor(bias)))

    def rectify(self, node: fx.Node, images: fx.Node) -> None:
        """A ReLU, unless the layer before has done it."""
        if node not in self._blobs:
            self._layer("ReLU", [images], node, {})

    def combine(self, node: fx.Node, one: fx.Node, other: fx.Node | float, *, kind: int) -> None:
        """A sum or a product of two results, or of one and a number."""
        if isinstance(other, fx.Node):
            self._layer("BinaryOp", [one, other], node, {0: kind})
        else:
            self._layer("BinaryOp", [one], node, {0: kind, 1: 1, 2: float(other)})

    def average(
        self,
        node: fx.Node,
        images: fx.Node,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int] = (0, 0),
        ceil: bool = False,
        counted: bool = True,
    ) -> None:
        """Means over windows."""
        if ceil:
            raise self._refusal("means over windows that are rounded up")
        options: dict[int, float] = {0: 1, 1: kernel[1], 11: kernel[0], 2: stride[1], 12: stride[0]}
        self._layer("Pooling", [images], node, options | {3: padding[1], 13: padding[0], 5: 1, 6: int(counted)})

    def shuffle(self, node: fx.Node, images: fx.Node, factor: int, *, kind: str) -> None:
        """Channels to pixels, or back."""
        self._layer(kind, [images], node, {0: factor})

    def same(self, node: fx.Node, images: fx.Node) -> None:
        """Another name."""
        self._blobs[node] = self._blobs[images]

    def _layer(
        self, kind: str, inputs: Sequence[fx.Node], node: fx.Node, options: dict[int, float], name: str = ""
    ) -> None:
        self._layers.append((kind, [self._blobs[each] for each in inputs], name or node.name, options))
        self._blobs[node] = name or node.name

    def _refusal(self, reason: str) -> ParityError:
        return ParityError(f"{self._network} cannot be converted to ncnn: nothing stands for {reason}")

    def _tensor(self, node: fx.Node) -> Tensor:
        found: Tensor = operator.attrgetter(str(node.target))(self.traced)
        return found.detach()


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().numpy().astype("<f4").tobytes()


_RELU = ("aten.relu.default", "aten.relu_.default")
_OPERATIONS: Mapping[str, Callable[..., None]] = {
    "aten.conv2d.default": _Writer.convolve,
    **dict.fromkeys(_RELU, _Writer.rectify),
    "aten.add.Tensor": lambda *found: _Writer.combine(*found, kind=0),
    "aten.mul.Tensor": lambda *found: _Writer.combine(*found, kind=2),
    "aten.avg_pool2d.default": _Writer.average,
    "aten.pixel_shuffle.default": lambda *found: _Writer.shuffle(*found, kind="PixelShuffle"),
    "aten.pixel_unshuffle.default": lambda *found: _Writer.shuffle(*found, kind="Reorg"),
    "aten.alias.default": _Writer.same,
}
"""What ncnn is told of each of PyTorch's operations."""


def ncnn_runner(model: NcnnModel) -> Callable[[Tensor], Tensor]:
    """What runs a model by ncnn on the CPU, in float32, on as many threads as PyTorch has at the time.

    It may be called from several threads.
    """
    net = cache(partial(_load, model))

    def restored(image: Pixels, threads: int) -> Pixels:
        import ncnn

        extractor = net(threads).create_extractor()
        extractor.input(INPUT, ncnn.Mat(image).clone())  # its own memory: ncnn may work in place
        return np.array(extractor.extract(model.output)[1])

    def run(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        whole = completed(images.detach(), model.multiple).contiguous().numpy()
        threads = torch.get_num_threads()
        if len(whole) < threads:
            results = [restored(image, threads) for image in whole]
        else:
            cores = Cores()
            with cores.apart():
                results = list(cores.run([partial(restored, image, 1) for image in whole]))
        return torch.from_numpy(np.stack(results))[..., :height, :width]

    return run


def _load(model: NcnnModel, threads: int) -> Any:
    """The model, ready to run on so many threads: ncnn arranges the weights for their number."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for narrow in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{narrow}", False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.bin"
        path.write_bytes(model.weights)
        if net.load_param_mem(model.layers) != 0 or net.load_model(str(path)) != 0:
            raise ParityError("ncnn cannot read the converted network")
    return net
