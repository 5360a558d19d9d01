"""Networks as ncnn models: 3x3 convolutions by Winograd's algorithm, at a quarter of the multiplications or fewer.

ncnn (Tencent/ncnn) computes 4x4 pixels at a time, and 6x6 where there are few channels, which rounds more coarsely. It
works on one image at a time: a batch is spread over the threads image by image, a few images layer by layer.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from restore_env.compute.worker_pool import WorkerPool
from restore_env.images.arrays import Float
from tools_zoo.backends.parity import ParityError
from tools_zoo.networks import completed

INPUT = "images"
"""The name of a model's input, one float32 RGB image ``(3, H, W)`` in [0, 1]."""

_MAGIC = "7767517"  # the first line of ncnn's text files
_RAW = b"\0\0\0\0"  # weights follow as they are: float32
_ADD, _MULTIPLY = 0, 2  # of BinaryOp


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

    That the results are those of the network is for :func:`tools_zoo.backends.parity.check_parity` to say.

    Args:
        network: on the CPU, made of plain convolutions, ReLU, sums, products, means and pixel-shuffles. If it has an
            attribute ``multiple``, it completes sides that are no multiple of it, as
            :func:`tools_zoo.networks.completed` does.

    Raises:
        ParityError: it has something else in it, or layers that depend on values.
    """
    images = torch.zeros((1, 3, 64, 64), dtype=torch.float32, device="cpu")
    recorder = _Recorder(type(network).__name__, images)
    with torch.inference_mode(False), torch.no_grad(), recorder:
        result = network(images)
    if not isinstance(result, Tensor):
        raise ParityError(f"{type(network).__name__} cannot be converted to ncnn: its result is not one tensor")
    layers, output = _with_activations(recorder.layers, recorder.blob(result))
    return NcnnModel(_text(layers), b"".join(recorder.weights), output, int(getattr(network, "multiple", 1)))


@dataclass(frozen=True)
class _Layer:
    kind: str
    inputs: list[str]
    output: str
    """The name of the result, and of the layer."""
    options: Mapping[int, float]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records PyTorch's operations as ncnn layers."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would import its compiler, for a second, to keep it from compiling this."""
        return False

    def __init__(self, network: str, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = network
        self._blobs = {id(images): INPUT}
        self._kept: list[Any] = [images]  # an id is not reused while they live
        self.layers = [_Layer("Input", [], INPUT, {})]
        self.weights: list[bytes] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        """Compute and record an operation."""
        write = _LAYERS.get(str(operation))
        if write is None or named:
            raise self._refusal(f"{operation} {' '.join(named or ())}".rstrip())
        result = operation(*arguments)
        self._kept.append(result)
        self._blobs[id(result)] = write(self, *arguments)
        return result

    def blob(self, value: Any) -> str:
        """The name of a result or an input."""
        if id(value) not in self._blobs:
            raise self._refusal("what is not computed from the image")
        return self._blobs[id(value)]

    def convolution(
        self,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        *further: Any,
    ) -> str:
        """A convolution; ``further`` ends with its groups, and may begin with whether it is transposed."""
        if further and (further[0] is True or further[-1] != 1):
            raise self._refusal("a convolution in groups, or transposed")
        if {id(weight), id(bias)} & self._blobs.keys():
            raise self._refusal("a convolution with weights that are computed")
        outputs, _, height, width = weight.shape
        options: dict[int, float] = {0: outputs, 1: width, 11: height, 2: dilation[1], 12: dilation[0]}
        options |= {3: stride[1], 13: stride[0], 4: padding[1], 14: padding[0], 5: int(bias is not None)}
        self.weights += [_RAW, *(_bytes(values) for values in (weight, bias) if values is not None)]
        return self._add("Convolution", [images], options | {6: weight.numel()})

    def relu(self, images: Tensor) -> str:
        """A ReLU."""
        return self._add("ReLU", [images], {})

    def relu_in_place(self, images: Tensor) -> str:
        """An in-place ReLU."""
        if Counter(self._blobs.values())[self.blob(images)] > 1:
            raise self._refusal("an in-place change of a result that is used elsewhere")
        return self.relu(images)

    def combined(self, one: Tensor, other: Tensor | float, *, kind: int) -> str:
        """A sum or a product of two results, or of one and a number."""
        if isinstance(other, Tensor):
            return self._add("BinaryOp", [one, other], {0: kind})
        return self._add("BinaryOp", [one], {0: kind, 1: 1, 2: float(other)})

    def means(
        self,
        images: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0, 0),
        ceil: bool = False,
        counted: bool = True,
        divisor: int | None = None,
    ) -> str:
        """Means over windows."""
        if ceil or divisor is not None:
            raise self._refusal("means over windows that are rounded up, or with a divisor")
        (height, width), (down, right), (above, left) = kernel, stride or kernel, padding
        options = {0: 1, 1: width, 11: height, 2: right, 12: down, 3: left, 13: above, 5: 1, 6: int(counted)}
        return self._add("Pooling", [images], options)

    def shuffled(self, images: Tensor, factor: int, *, kind: str) -> str:
        """Channels to pixels, or back."""
        return self._add(kind, [images], {0: factor})

    def _add(self, kind: str, inputs: Sequence[Tensor], options: Mapping[int, float]) -> str:
        name = f"{kind}{len(self.layers)}"
        self.layers.append(_Layer(kind, [self.blob(each) for each in inputs], name, options))
        return name

    def _refusal(self, reason: str) -> ParityError:
        return ParityError(f"{self._network} cannot be converted to ncnn: nothing stands for {reason}")


_LAYERS: Mapping[str, Callable[..., str]] = {
    "aten.convolution.default": _Recorder.convolution,
    "aten.conv2d.default": _Recorder.convolution,  # of weights that were made in inference mode
    "aten.relu.default": _Recorder.relu,
    "aten.relu_.default": _Recorder.relu_in_place,
    "aten.add.Tensor": partial(_Recorder.combined, kind=_ADD),
    "aten.mul.Tensor": partial(_Recorder.combined, kind=_MULTIPLY),
    "aten.avg_pool2d.default": _Recorder.means,
    "aten.pixel_shuffle.default": partial(_Recorder.shuffled, kind="PixelShuffle"),
    "aten.pixel_unshuffle.default": partial(_Recorder.shuffled, kind="Reorg"),
    "aten.alias.default": _Recorder.blob,
}
"""The method that records each of PyTorch's operations."""


def _bytes(values: Tensor) -> bytes:
    return values.detach().contiguous().numpy().astype("<f4").tobytes()


def _with_activations(layers: Sequence[_Layer], result: str) -> tuple[list[_Layer], str]:
    """A ReLU becomes part of the convolution before it, if nothing else uses that one's result.

    Returns:
        The layers, and the name of the result.
    """
    users = Counter([result, *(name for layer in layers for name in layer.inputs)])
    alone = {layer.output for layer in layers if layer.kind == "Convolution" and users[layer.output] == 1}
    fused = {layer.output: layer.inputs[0] for layer in layers if layer.kind == "ReLU" and layer.inputs[0] in alone}
    made = []
    for layer in layers:
        if layer.output in fused:
            continue
        inputs = [fused.get(name, name) for name in layer.inputs]
        more = {9: 1} if layer.output in fused.values() else {}
        made.append(replace(layer, inputs=inputs, options={**layer.options, **more}))
    return made, fused.get(result, result)


def _text(layers: Sequence[_Layer]) -> str:
    """The layers in ncnn's text format; a result with several users gets a Split layer."""
    users = Counter(name for layer in layers for name in layer.inputs)
    handed: Counter[str] = Counter()

    def taken(name: str) -> str:
        handed[name] += 1
        return f"{name}.{handed[name]}" if users[name] > 1 else name

    lines = []
    for layer in layers:
        names = " ".join([*map(taken, layer.inputs), layer.output])
        options = " ".join(f"{key}={value}" for key, value in layer.options.items())
        lines.append(f"{layer.kind} {layer.output} {len(layer.inputs)} 1 {names} {options}".rstrip())
        count = users[layer.output]
        if count > 1:
            copies = " ".join(f"{layer.output}.{number + 1}" for number in range(count))
            lines.append(f"Split {layer.output}.split 1 {count} {layer.output} {copies}")
    results = len(layers) + sum(count for count in users.values() if count > 1)
    return "\n".join([_MAGIC, f"{len(lines)} {results}", *lines, ""])


def ncnn_runner(model: NcnnModel) -> Callable[[Tensor], Tensor]:
    """A function that runs a model by ncnn on the CPU, in float32, on as many threads as PyTorch has at the time.

    It takes float32 ``(N, 3, H, W)``, no size 0 (ncnn does not check), and may be called from several threads.
    It takes twice the memory that PyTorch takes: large images are for :func:`restore_env.images.tiling.apply_tool`.
    """
    net = cache(partial(_load, model))

    def restored(image: Float) -> Float:
        import ncnn

        extractor = net(torch.get_num_threads()).create_extractor()
        given = ncnn.Mat(image).clone()  # its own memory: ncnn may work in place
        failed = given.empty() or extractor.input(INPUT, given)
        failed, result = (failed, given) if failed else extractor.extract(model.output)
        if failed or result.empty():
            raise MemoryError(f"ncnn has no memory for an image of {image.shape[2]}x{image.shape[1]} pixels")
        return np.array(result)

    def run(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        whole = completed(images.detach(), model.multiple).contiguous().numpy()
        if len(whole) < torch.get_num_threads():
            results = [restored(image) for image in whole]
        else:
            cores = WorkerPool()
            with cores.single_threaded():
                results = list(cores.run([partial(restored, image) for image in whole]))
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
