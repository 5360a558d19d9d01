"""Level sets on disk: a folder of arrays that can be mapped into memory, or one compressed file."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from restore_env.episodes.spectrum import COMPACT_SIZE
from restore_env.errors import ImageRestoreError, one_line
from restore_env.images.files import write_atomically
from restore_env.levels.tree import ChainTree
from restore_env.plain_data import FromFile, parse_json

MANIFEST = "levels.json"
DATABASE = "transitions.sqlite"
"""File beside the arrays with what was computed after the set was built."""
SUFFIX = ".levels"
"""Suffix of a level set in one file."""
PACKAGED = Path(__file__).parent / "sets"
"""Folder of the level sets that come with the package."""
FORMAT = 2
_LONGEST = 512
"""Bytes of a level's distortion as JSON; a longer one is rounded, then loses its texts."""
MOST_CHAINS = 10**9
"""Chains of tools on all levels that a set can hold."""

Array = npt.NDArray[Any]


class LevelError(ImageRestoreError):
    """A level set that cannot be used; one line."""


class PhotographsMissingError(LevelError):
    """Something has to be computed from a level set's photographs, which are not here; one line."""


@dataclass(frozen=True)
class Manifest:
    """What a level set was computed with."""

    count: int
    """Number of levels."""
    depth: int
    """Length of the chains of which all results are stored."""
    seed: int
    """From which the levels' seeds are drawn."""
    tools: Sequence[str]
    """Names of the toolbox's tools."""
    scales: Sequence[int]
    macs_per_pixel: Sequence[float]
    fingerprint: str
    """Of the toolbox's weights (:func:`restore_env.levels.fingerprint.fingerprint`)."""
    photographs: Sequence[str]
    """Names of the photographs that the levels come from."""
    images: str | Sequence[str] | None
    """Where those photographs are; None: embedded ones."""
    pixels: bool
    """Whether observed patches are stored, too."""
    last_observed: bool
    """Whether what is observed after the last step is stored, too; no policy needs it."""
    beyond: bool
    """Whether a step beyond the depth is stored, too: what is observed after each level's best chain of full length,
    and what every tool gains there."""
    toolbox: str | None
    severity: str
    distortion: str | None
    patch_size: int
    upscale: Sequence[int]
    reward: str
    saturation_prob: float
    draws: str
    backend: str | None
    format: int = FORMAT

    def task_fields(self) -> dict[str, Any]:
        """The fields of :class:`restore_env.Task` that the set determines, but for the toolbox."""
        names = ("severity", "distortion", "patch_size", "upscale", "reward", "saturation_prob", "draws", "backend")
        return {name: getattr(self, name) for name in names} | {"upscale": tuple(self.upscale)}

    @property
    def tree(self) -> ChainTree:
        """The chains whose results are stored."""
        return ChainTree(len(self.tools), self.depth)

    @property
    def observed(self) -> int:
        """Number of chains after which the observation is stored, the shortest ones."""
        return self.tree.size if self.last_observed else max(1, self.tree.inner)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of each array, by name; the first axis is the level."""
        levels, nodes, size = self.count, self.tree.size, self.patch_size
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "complete": ((levels,), "bool"),
            "seed": ((levels,), "int64"),
            "photograph": ((levels,), "int64"),
            "upscale": ((levels,), "int64"),
            "distortion": ((levels,), f"S{_LONGEST}"),
            "psnr": ((levels, nodes), "float64"),
            "spectrum": ((levels, self.observed, COMPACT_SIZE), "uint8"),
        }
        if self.reward != "psnr":
            shapes["score"] = ((levels, nodes), "float64")
        if self.pixels:
            shapes["image"] = ((levels, self.observed, size, size, 3), "uint8")
        if self.beyond:
            shapes["beyond_chain"] = ((levels,), "int64")
            shapes["beyond_gain"] = ((levels, len(self.tools)), "float64")
            shapes |= {
                f"beyond_{name}": ((levels, *shape[2:]), kind)
                for name, (shape, kind) in shapes.items()
                if name in ("spectrum", "image")
            }
        return shapes

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> Manifest:
        """Read a manifest.

        Raises:
            LevelError: the text is none, or of another version.
        """
        values = parse_json(text, name, LevelError)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = repr(values.get("format")) if isinstance(values, dict) else "unknown"
            raise LevelError(
                f"{name}: no level set of format {FORMAT}, which this version reads; its format is {found}"
            )
        known = {field.name for field in fields(cls)}
        if values.keys() != known:
            raise LevelError(f"{name}: expected the fields {', '.join(sorted(known))}")
        for field, is_right in _KINDS.items():
            if not is_right(values[field]):
                raise LevelError(f"{name}: {field} is {values[field]!r:.80}")
        tools = len(values["tools"])
        if not tools == len(values["scales"]) == len(values["macs_per_pixel"]):
            raise LevelError(f"{name}: {tools} tools, but scales or macs_per_pixel of another number")
        if sum(tools**length for length in range(values["depth"] + 1)) * values["count"] > MOST_CHAINS:
            raise LevelError(f"{name}: more than {MOST_CHAINS} chains of tools")
        for field in ("toolbox", "distortion", "reward"):
            values[field] = None if values[field] is None else FromFile(values[field])
        return cls(**values)


def _whole(least: int, most: int = 2**53) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _number(most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and 0 <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


def _list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(map(is_right, value))


_KINDS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "count": _whole(1),
        "depth": _whole(0, 16),
        "seed": _whole(0),
        "tools": _list_of(_text),
        "scales": _list_of(_whole(1, 64)),
        "macs_per_pixel": _list_of(_number(1e12)),
        "fingerprint": _text,
        "photographs": _list_of(_text),
        "images": lambda value: value is None or _text(value) or _list_of(_text)(value),
        **dict.fromkeys(("pixels", "last_observed", "beyond"), _truth),
        **dict.fromkeys(("toolbox", "distortion", "backend"), _or_none(_text)),
        **dict.fromkeys(("severity", "reward", "draws"), _text),
        "patch_size": _whole(1, 2**16),
        "upscale": _list_of(_whole(1, 64)),
        "saturation_prob": _number(1),
        "format": _whole(FORMAT, FORMAT),
    }
)
"""What each field of a manifest may be."""


class LevelSet:
    """A level set: its manifest and arrays (:meth:`Manifest.arrays`), open for reading.

    Args:
        path: where it is.
        manifest: what it was computed with.
        arrays: by name.
    """

    def __init__(self, path: Path, manifest: Manifest, arrays: dict[str, Array]) -> None:
        self.path, self.manifest, self.arrays = path, manifest, arrays
        self.tree = manifest.tree
        self.scales = np.array(manifest.scales, dtype=np.int64)
        self.macs_per_pixel = np.array(manifest.macs_per_pixel, dtype=np.float64)

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def score(self) -> Array:
        """The reward's metric after each chain, ``(levels, nodes)``."""
        return self.arrays.get("score", self.arrays["psnr"])

    def distortion(self, level: int) -> dict[str, Any]:
        """Place and true levels of the distortion of a level."""
        text = self.arrays["distortion"][level]
        distortion = parse_json(text, f"{self.path}: distortion of level {level}", LevelError) if text else {}
        if not isinstance(distortion, dict):
            raise LevelError(f"{self.path}: the distortion of level {level} is no object")
        return distortion

    @cached_property
    def by_seed(self) -> dict[int, int]:
        """The level of each seed."""
        return {seed: level for level, seed in enumerate(self.arrays["seed"].tolist())}

    def pack(self, path: str | os.PathLike[str]) -> None:
        """Write the set as one compressed file, without the folders of photographs and toolbox."""
        buffer = io.BytesIO()
        names = [Path(name).name for name in self.manifest.photographs]
        toolbox = self.manifest.toolbox
        if toolbox is not None and Path(toolbox).is_absolute():
            toolbox = Path(toolbox).name
        manifest = asdict(self.manifest) | {"images": None, "photographs": names, "toolbox": toolbox}
        np.savez_compressed(buffer, manifest=np.array(json.dumps(manifest)), **self.arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())


def packaged_levels() -> list[str]:
    """Names of the level sets that come with the package."""
    return sorted(path.stem for path in PACKAGED.glob(f"*{SUFFIX}"))


def open_levels(name_or_path: str | os.PathLike[str]) -> LevelSet:
    """Open a level set: one that comes with the package by its name, or a folder or a file.

    Raises:
        LevelError: there is none, it is damaged, or its building has not finished.
    """
    packaged = str(name_or_path) in packaged_levels()
    path = PACKAGED / f"{name_or_path}{SUFFIX}" if packaged else Path(name_or_path)
    manifest = path / MANIFEST
    try:
        changed = (manifest if path.is_dir() else path).stat().st_mtime_ns
    except OSError:
        known = ", ".join(packaged_levels()) or "none here"
        raise LevelError(
            f"{path}: no level set; use the name of a packaged one ({known}), or 'imagerestore levels build' makes one"
        ) from None
    return _opened(path.resolve(), changed)


@lru_cache(maxsize=8)
def _opened(path: Path, changed: int) -> LevelSet:
    manifest, arrays = _folder(path) if path.is_dir() else _file(path)
    for name, (shape, dtype) in manifest.arrays().items():
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype != np.dtype(dtype):
            raise LevelError(f"{path}: damaged: {name} should be {dtype} of shape {shape}")
    for name, known in (("photograph", range(len(manifest.photographs))), ("upscale", manifest.upscale)):
        if not np.isin(arrays[name][arrays["complete"]], known).all():
            raise LevelError(f"{path}: damaged: levels with another {name} than its {len(known)}")
    done = int(arrays["complete"].sum())
    if done < manifest.count:
        raise LevelError(f"{path}: {done} of {manifest.count} levels are built: run the same 'levels build' again")
    return LevelSet(path, manifest, arrays)


def _folder(path: Path) -> tuple[Manifest, dict[str, Array]]:
    manifest = _manifest(path / MANIFEST)
    return manifest, {name: _mapped(path / f"{name}.npy", "r") for name in manifest.arrays()}


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest.from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise LevelError(f"{path}: {error.strerror}") from None


def _mapped(path: Path, mode: Literal["r", "r+"]) -> Array:
    """An array that is mapped into memory."""
    try:
        return np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))
    except OSError as error:
        raise LevelError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # NumPy parses the header as Python, which may raise anything
        raise LevelError(f"{path}: not an array: {one_line(error)}") from None


def _file(path: Path) -> tuple[Manifest, dict[str, Array]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            manifest = Manifest.from_json(str(file["manifest"]), str(path))
            return manifest, {name: file[name] for name in manifest.arrays()}
    except LevelError:
        raise
    except Exception as error:  # a damaged archive may raise anything
        raise LevelError(f"{path}: not a level set: {' '.join(str(error).split())}") from None


def create(path: Path, manifest: Manifest) -> dict[str, Array]:
    """Make the files of a level set in a folder, or open those of an unfinished one, for writing.

    Raises:
        LevelError: the folder holds another level set.
    """
    described = json.dumps(asdict(manifest), indent=1)
    path.mkdir(parents=True, exist_ok=True)
    file = path / MANIFEST
    if file.exists():
        if _manifest(file) != Manifest.from_json(described, ""):
            raise LevelError(f"{path}: holds a level set with other settings: choose another folder")
    else:
        (path / DATABASE).unlink(missing_ok=True)  # of a set that was here
        try:
            for name, (shape, dtype) in manifest.arrays().items():
                _reserve(path / f"{name}.npy", shape, dtype)
            write_atomically(file, described.encode())
        except BaseException:
            for name in manifest.arrays():
                (path / f"{name}.npy").unlink(missing_ok=True)
            raise
    return {name: _mapped(path / f"{name}.npy", "r+") for name in manifest.arrays()}


def _reserve(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Make an array's file, which takes its room on the disk now: later a full one would end the process mutely."""
    try:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape).flush()
    except OSError as error:
        raise LevelError(f"{path}: {error.strerror or error}") from None
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LevelError(f"{path}: {error.strerror}") from None


def distortion_text(distortion: dict[str, Any]) -> bytes:
    """A distortion as JSON; if it is too long to be kept, to four digits; else also without its texts.

    Such texts are what a user's transforms did.
    """
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in distortion.items()}
    numbers = {name: value for name, value in rounded.items() if not isinstance(value, str)}
    texts = (json.dumps(kept, separators=(",", ":")).encode() for kept in (distortion, rounded, numbers))
    return next((text for text in texts if len(text) <= _LONGEST), b"")


def chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive parts of at most ``size`` items."""
    for first in range(0, len(items), size):
        yield items[first : first + size]
