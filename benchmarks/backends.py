"""What runs the tools fastest on this CPU: ``python -m benchmarks.backends``.

Every backend runs one tool of each network on 64 patches, on as many in the uneven groups that an environment's step
makes of them, and, tile by tile, on a photograph of 2 megapixels, which plain PyTorch takes as a whole. All take turns,
so that a disturbed machine is unfair to none; the best of the rounds counts. ``--tried`` adds ways of running that are
not among the backends. A product of large matrices tells how fast this processor multiplies at all.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_float, positive_int
from benchmarks.machine import environment
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from restore_env.images.sources import ImageSource, open_images
from restore_env.images.tiling import apply_tool, to_tensor
from restore_env.toolbox import FunctionTool
from tools_zoo.backends.folding import piecewise
from tools_zoo.backends.network_tool import BACKENDS, NetworkTool
from tools_zoo.backends.parity import photograph_like
from tools_zoo.toolboxes import load_toolbox, read_manifest, toolbox_folder

PROGRAM = "benchmarks.backends"
SECTION = "backends"
REFERENCE = "eager"
PATCH_SIZE = 63
GROUPS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 15)
"""Patches in a group, as when 64 environments choose among a dozen tools."""
PATCHES = sum(GROUPS)

Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One way to run one network. None: not measured."""

    network: str
    way: str
    first_seconds: float | None = None
    """Until the first result, with everything made ready."""
    patches_ms: float | None = None
    groups_ms: float | None = None
    photo_seconds: float | None = None
    """In tiles, but for the reference."""
    gflops: float | None = None
    """10^9 additions and multiplications a second, on the patches."""
    difference: float | None = None
    """The largest difference to plain PyTorch, patches and photograph."""
    tiled_seconds: float | None = None
    """For the photograph in tiles; of the reference alone."""
    remark: str = ""


def channels_last(network: nn.Module) -> Runner:
    """Plain PyTorch on images and weights that lie channels last."""
    twin = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda images: twin(images.contiguous(memory_format=torch.channels_last))


def in_pieces(network: nn.Module) -> Runner:
    """The same in pieces of a batch."""
    whole = channels_last(network)
    return lambda images: piecewise(whole, images)  # type: ignore[arg-type]


def compiled(network: nn.Module) -> Runner:
    """TorchInductor with frozen weights and sizes that may change."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    program = torch.compile(copy.deepcopy(network), dynamic=True)
    return lambda images: program(images)


TRIED: Mapping[str, Callable[[nn.Module], Runner]] = {
    "channels last": channels_last,
    "channels last, in pieces": in_pieces,
    "torch.compile": compiled,
}
"""What else was tried."""


def one_of_each_network(toolboxes: Sequence[str]) -> dict[str, NetworkTool]:
    """The first tool of each network of some toolboxes, by the network's name."""
    found: dict[str, NetworkTool] = {}
    for name in toolboxes:
        rows = read_manifest(toolbox_folder(name))
        for tool, (_, network) in zip(load_toolbox(name), rows, strict=True):
            assert isinstance(tool, NetworkTool)
            found.setdefault(network, tool)
    return found


def photograph(images: Path | None, megapixels: float) -> Tensor:
    """The first photograph, enlarged or shrunk to so many megapixels: ``(1, 3, H, W)`` in [0, 1]."""
    source = open_images(images, min_size=PATCH_SIZE)
    if not isinstance(source, ImageSource):
        raise ValueError("backends are measured on a photograph, not on pairs")
    image = to_tensor(source.pixels(0))
    factor = (megapixels * 1e6 / (image.shape[2] * image.shape[3])) ** 0.5
    return F.interpolate(image, scale_factor=factor, mode="bicubic").clamp(0, 1).contiguous()


def measure(
    network: str, tool: NetworkTool, ways: Mapping[str, Callable[[nn.Module], Runner]], photo: Tensor, rounds: int
) -> Iterator[Row]:
    """Measure one network in every way; the ways take turns."""
    patches = photograph_like(PATCHES, PATCH_SIZE, PATCH_SIZE, torch.Generator().manual_seed(0))
    runners: dict[str, Runner] = {}
    first: dict[str, float] = {}
    for way, prepare in ways.items():
        began = time.perf_counter()
        try:
            runners[way] = prepare(tool.network)
            runners[way](patches[:2])
        except Exception as error:  # one way's failure is not the others'
            yield Row(network, way, remark=" ".join(f"{type(error).__name__}: {error}".split())[:80])
            runners.pop(way, None)
            continue
        first[way] = time.perf_counter() - began
    tasks: dict[str, Callable[[Runner], Tensor]] = {
        "patches": lambda run: run(patches),
        "groups": lambda run: torch.cat([run(group) for group in torch.split(patches, list(GROUPS))]),
        "photo": lambda run: apply_tool(FunctionTool(network, run, receptive_radius=tool.receptive_radius), photo),
    }
    expected = {task: tasks[task](tool.by(REFERENCE)) for task in tasks}
    best: dict[tuple[str, str], float] = {}
    differences = dict.fromkeys(runners, 0.0)
    whole: float | None = None
    for _ in range(rounds + 1):  # the first warms up, and counts only if it is the best
        for task, work in tasks.items():
            for way, run in runners.items():
                began = time.perf_counter()
                outputs = work(run)
                seconds = time.perf_counter() - began
                best[way, task] = min(seconds, best.get((way, task), seconds))
                differences[way] = max(differences[way], float((outputs - expected[task]).abs().max()))
        began = time.perf_counter()
        runners[REFERENCE](photo)
        seconds = time.perf_counter() - began
        whole = min(seconds, whole or seconds)
    for way in runners:
        patches_seconds, groups_seconds, photo_seconds = (best[way, task] for task in tasks)
        tiled = photo_seconds if way == REFERENCE else None
        yield Row(
            network,
            way,
            first_seconds=first[way],
            patches_ms=patches_seconds * 1e3,
            groups_ms=groups_seconds * 1e3,
            photo_seconds=photo_seconds if tiled is None else whole,
            gflops=2 * tool.macs_per_pixel * PATCHES * PATCH_SIZE**2 / patches_seconds / 1e9,
            difference=differences[way],
            tiled_seconds=tiled,
        )


def matrix_gflops(side: int = 3000, rounds: int = 3) -> float:
    """10^9 additions and multiplications a second in a product of large float32 matrices, at its best."""
    matrices = torch.rand(2, side, side)
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        torch.mm(matrices[0], matrices[1])
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best / 1e9


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table; gains are against plain PyTorch."""
    patches = f"{PATCHES} patches, ms", "gain", "GFLOP/s"
    head = *patches, "in groups, ms", "gain", "photo, s", "gain", "largest difference"
    lines = [
        f"| network | run by | {' | '.join(head)} | first result, s |",
        "|---|---|" + "---:|" * (len(head) + 1),
    ]
    plain = {row.network: row for row in rows if row.way == REFERENCE}
    for row in rows:
        own = row.patches_ms, row.groups_ms, row.photo_seconds
        if None in own:
            lines.append(f"| {row.network} | {row.way}: {row.remark} |" + " - |" * (len(head) + 1))
            continue
        base = plain[row.network]
        cells = []
        for value, reference, digits in zip(
            own, (base.patches_ms, base.groups_ms, base.photo_seconds), (0, 0, 2), strict=True
        ):
            assert value is not None
            assert reference is not None
            cells += [f"{value:.{digits}f}", f"{reference / value:.2f}x"]
        cells.insert(2, f"{row.gflops:.0f}")
        cells += [f"{row.difference:.0e}", f"{row.first_seconds:.1f}"]
        lines.append(f"| {row.network} | {row.way} | {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """PyTorch on so many threads (None: as many as it has)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> int:
    """Measure everything and publish it."""
    check_outputs(arguments, SECTION)
    photo = photograph(arguments.images, arguments.megapixels)
    tools = one_of_each_network(arguments.toolbox)
    absent = {
        name: f"needs {backend.missing}: pip install imagerestore[{backend.extra}]"
        for name, backend in BACKENDS.items()
        if backend.missing is not None
    }
    backends = sorted(BACKENDS, key=lambda name: name != REFERENCE)  # the reference first
    ways = {name: BACKENDS[name].prepare for name in backends if name not in absent}
    ways |= TRIED if arguments.tried else {}
    rows: list[Row] = []
    with using_threads(arguments.threads):
        threads, product = torch.get_num_threads(), matrix_gflops()
        for network, tool in tools.items():
            rows += measure(network, tool, ways, photo, arguments.rounds)
            rows += [Row(network, name, remark=remark) for name, remark in absent.items()]
    height, width = photo.shape[2:]
    text = (
        f"{markdown(rows)}\n\n{threads} threads, PyTorch {torch.__version__}; best of {arguments.rounds + 1} rounds;"
        f" patches of {PATCH_SIZE}x{PATCH_SIZE}, groups of {', '.join(map(str, GROUPS))};"
        f" photo {width}x{height}, in tiles, but for plain PyTorch, which in tiles takes"
        f" {', '.join(f'{row.tiled_seconds:.2f} s ({row.network})' for row in rows if row.tiled_seconds)}."
        f" A product of large matrices: {product:.0f} GFLOP/s."
    )
    record = {
        "environment": environment() | {"threads": threads},
        "photo": [width, height],
        "matrix_gflops": product,
        "rows": [asdict(row) for row in rows],
    }
    publish(arguments, SECTION, text, record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code: 0 done, 2 a mistake that one line explains, 130 interrupted."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--toolbox", nargs="+", default=["default", "classic"], help="shipped names or folders")
    parser.add_argument("--images", type=Path, help="photograph, or folder (default: one that comes with scikit-image)")
    parser.add_argument("--megapixels", type=positive_float, default=2.0, help="of the photograph (default 2)")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--threads", type=positive_int, help="of PyTorch (default: as it chooses)")
    parser.add_argument("--tried", action="store_true", help="measure what is not among the backends, too")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
