"""Small runs of the commands that write folders: what they read, how they are called, and what they have written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from agents.agent import RecurrentAgent, save_policy
from benchmarks.soak.promises.forks import Forks
from benchmarks.soak.targets import TOOLS, write_photographs, write_toolbox

INPUTS = ("photographs", "tools", "labels", "levels")
"""Folders that commands read, beside the working folder."""
OUT = "out"
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "train tools": "train tools --images {photographs} --out {out} --tools denoise_2 dejpeg_1 --steps 5"
        " --batch-size 2 --patch-size 16",
        "train joint": "train joint --images {photographs} --toolbox {tools} --out {out} --steps 4 --rounds 2"
        " --batch-size 2",
        "train sr": "train sr --model sed --generator light --images {photographs} --out {out} --steps 3 --crop-size 32"
        " --batch-size 2 --discriminator-width 4",
        "train prior": "train prior --labels {labels} --out {out} --steps 4 --patch-size 32 --batch-size 2",
        "train agent": "train agent --images {photographs} --toolbox {tools} --upscale 1 --out {out} --envs 2"
        " --steps 100",
        "train imitation": "train imitation --levels {levels} --out {out} --steps 10 --batch-size 4",
        "levels build": "levels build --images {photographs} --toolbox {tools} --upscale 1 --count 40 --beyond"
        " --no-last --out {out}",
        "restore": "restore {photographs} -o {out}/ --toolbox {tools} --caution 0 --skip-existing",
    }
)
"""The commands by name; the same words go on where they were."""


@dataclass(frozen=True)
class Whole:
    """What a command does that nothing disturbs."""

    seconds: float
    files: Mapping[str, str]
    """As :func:`written` gives them."""
    size: int
    """Bytes of the files."""


class Bench:
    """Inputs, and what each command makes of them undisturbed.

    Args:
        folder: to work in; one that another bench has worked in holds what that one knew.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.forks, self._kept = folder, Forks(folder / "printed"), folder / "whole.json"
        if self._kept.exists():
            self._whole = {name: Whole(**row) for name, row in json.loads(self._kept.read_text()).items()}
            return
        self._whole = {}
        write_photographs(folder / "photographs")
        write_toolbox(folder / "tools")
        torch.manual_seed(0)
        agent = RecurrentAgent(TOOLS)
        agent.head.bias.data[-1] = -100  # never stop
        save_policy(agent, folder / "tools" / "agent.safetensors")
        write_labels(folder / "labels")
        built = self.forks.run(words("levels build", "levels", "."), folder)
        assert built.code == 0, built
        self._kept.write_text("{}")

    def whole(self, name: str) -> Whole:
        """What a command does that nothing disturbs."""
        if name not in self._whole:
            place = self.place("whole")
            ended = self.forks.run(words(name), place)
            assert ended.code == 0, f"{name}: {ended}"
            files, strays = written(name, place), left(place)
            assert not strays, f"{name} leaves {strays}"
            size = sum(path.stat().st_size for path in (place / OUT).rglob("*") if path.is_file())
            self._whole[name] = Whole(ended.seconds, files, size)
            self._kept.write_text(json.dumps({each: asdict(whole) for each, whole in self._whole.items()}))
        return self._whole[name]

    def place(self, name: str = "case") -> Path:
        """An empty working folder, with links to the inputs."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def check(self, name: str, place: Path, out: str = OUT, without: str = "") -> None:
        """Repeat a command until its end; what is written then must be what it writes undisturbed."""
        age_parts(place)
        ended = self.forks.run(words(name, out), place)
        assert ended.code == 0, f"{name}, repeated: {ended}"
        age_parts(place)
        self.compare(name, place, out, without)

    def compare(self, name: str, place: Path, out: str = OUT, without: str = "") -> None:
        """What is written must be what the command writes undisturbed, but for one file, and nothing else is left."""
        found, whole = written(name, place, out), self.whole(name).files
        different = sorted(file for file in {*found, *whole} - {without} if found.get(file) != whole.get(file))
        assert not different, f"{name}: other contents of {', '.join(different[:5])}"
        strays = left(place)
        assert not strays, f"{name} leaves {', '.join(strays)}"


def words(name: str, out: str = OUT, inputs: str = "..") -> list[str]:
    """The words of a command, which runs in a folder beside the inputs."""
    places = {each: f"{inputs}/{each}" for each in INPUTS}
    return [word.format(out=out, **places) for word in COMMANDS[name].split()]


def written(name: str, place: Path, out: str = OUT) -> dict[str, str]:
    """A digest of each file that a command has written, by its name.

    Trainings write how long they took, and draw curves of what was measured: of such files only the names count.
    """
    root = place / out
    exact = not name.startswith("train")
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            file = "events" if path.name.startswith("events.") else path.name
            found[str(path.relative_to(root).with_name(file))] = _digest(path, exact)
    return found


def _digest(path: Path, exact: bool) -> str:
    if exact or path.suffix == ".json":
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    values: Any = None
    if path.suffix == ".safetensors":
        values = load_file(path)
    elif path.suffix == ".pt":
        values = torch.load(path, weights_only=True)
    hashed = hashlib.sha256()
    for piece in _plain(values):
        hashed.update(piece)
    return hashed.hexdigest()[:16]


def _plain(values: Any) -> Iterator[bytes]:
    """Tensors, numbers and texts of nested values, but for seconds."""
    if isinstance(values, Mapping):
        for key in sorted(values, key=repr):
            if "seconds" not in str(key):
                yield repr(key).encode()
                yield from _plain(values[key])
    elif isinstance(values, (list, tuple)):
        for each in values:
            yield from _plain(each)
    elif isinstance(values, Tensor):
        yield values.cpu().contiguous().numpy().tobytes()
    else:
        yield repr(values).encode()


def left(place: Path) -> list[str]:
    """Files that nobody needs: half-written ones, and those in the folder of temporary files."""
    hidden = [path for path in place.rglob(".*") if path.exists()]
    return sorted(str(path.relative_to(place)) for path in [*hidden, *(place / "tmp").iterdir()])


def age_parts(place: Path) -> None:
    """Make half-written files older than those which another process may have begun just now."""
    for path in place.rglob(".imagerestore-*"):
        os.utime(path, (0, 0))


def write_labels(folder: Path) -> None:
    """Labelled photographs of noise."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(3):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(rng.integers(0, 8, (40, 48), dtype=np.uint8)).save(folder / "labels" / f"{number}.png")


def chosen(names: Sequence[str], number: int) -> str:
    """The name of a case: all in turn."""
    return names[number % len(names)]
