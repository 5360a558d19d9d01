"""What reads files of strangers: a table of targets, each with whole files and a function that uses a mutated one."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import nn

from agents.agent import SHIPPED, RecurrentAgent, load_policy, save_policy
from agents.training.algorithms import parse_hyperparameters
from benchmarks.soak.image_files import image_files
from benchmarks.soak.mutations import OF_BYTES, OF_JSON, OF_SAFETENSORS, Mutation
from restore_env import EpisodeRecord, ImageRestoreEnv, ImageRestoreVectorEnv, Task
from restore_env.images.decoding import ImageError, decode_image
from restore_env.levels.building import build_levels
from restore_env.levels.store import DATABASE, MANIFEST, open_levels
from sr_models.extractors.extractor import load_frozen
from sr_models.prior.semantic_prior import SHIPPED as SR_SHIPPED
from sr_models.prior.semantic_prior import load_prior
from sr_models.super_resolver import read_generator
from tools_zoo.networks import NETWORKS
from tools_zoo.toolboxes import ToolWeights, load_toolbox, update_toolbox
from tools_zoo.training.runs import Validation
from tools_zoo.training.settings import NetworkTraining
from tools_zoo.training.tools import write_tools_card
from tools_zoo.training.trainer import train_network

TOOLS = ("denoise_2", "dejpeg_1")
PACKED = "packed.levels"
MOST_PIXELS = 20_000
"""Of an image that the command restores."""

Use = Callable[[bytes, np.random.Generator], object]


@dataclass(frozen=True)
class Target:
    """Something that reads files."""

    prepare: Callable[[Path], tuple[Sequence[bytes], Use]]
    """Whole files, and what uses a mutated one; given a folder to work in."""
    mutations: Sequence[Mutation] = OF_BYTES
    share: int = 1
    """Of the time."""


def decoder(_: Path) -> tuple[Sequence[bytes], Use]:
    """The decoder of image files."""

    def use(data: bytes, rng: np.random.Generator) -> None:
        page = int(rng.integers(1, 4)) if rng.random() < 0.2 else None
        decode_image(data, "file", strict=bool(rng.random() < 0.5), page=page)

    return image_files(), use


def command(folder: Path) -> tuple[Sequence[bytes], Use]:
    """``imagerestore restore``: exit code 0 or one line; files that decode to large images are left out."""
    from agents.cli import main

    write_toolbox(folder / "tools")
    save_policy(RecurrentAgent(TOOLS), folder / "tools" / "agent.safetensors")
    source, output = folder / "photo.img", folder / "out.png"
    arguments = ["restore", str(source), "-o", str(output), "--force", "--toolbox", str(folder / "tools")]

    def use(data: bytes, _: np.random.Generator) -> None:
        try:
            if decode_image(data, "file", strict=False).pixels.size > 3 * MOST_PIXELS:
                return
        except ImageError:
            pass
        source.write_bytes(data)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(arguments)
        lines = err.getvalue().splitlines()
        if code not in (0, 1, 2) or (code and len(lines) != 1) or "Traceback" in err.getvalue():
            raise AssertionError(f"exit code {code}, {out.getvalue()!r}, {err.getvalue()!r}")
        if code:
            raise ValueError(lines[0])

    return image_files(), use


def tool_weights(folder: Path) -> tuple[Sequence[bytes], Use]:
    """A tool's weights, in its toolbox."""
    write_toolbox(folder)
    path = folder / f"{TOOLS[0]}.safetensors"

    def use(data: bytes, _: np.random.Generator) -> None:
        path.write_bytes(data)
        load_toolbox(folder)
        write_tools_card(folder)

    return [path.read_bytes()], use


def toolbox(folder: Path) -> tuple[Sequence[bytes], Use]:
    """A toolbox's list of tools."""
    write_toolbox(folder)
    path = folder / "toolbox.json"

    def use(data: bytes, _: np.random.Generator) -> None:
        path.write_bytes(data)
        load_toolbox(folder)

    return [path.read_bytes()], use


def policy(folder: Path) -> tuple[Sequence[bytes], Use]:
    """A policy."""
    path = folder / "agent.safetensors"

    def use(data: bytes, _: np.random.Generator) -> None:
        path.write_bytes(data)
        load_policy(path)

    save_policy(RecurrentAgent(TOOLS), path)
    return [path.read_bytes(), (SHIPPED / "default.safetensors").read_bytes()], use


def super_resolution(folder: Path) -> tuple[Sequence[bytes], Use]:
    """A super-resolver's generator and the semantic prior."""
    path = folder / "weights.safetensors"
    files = [(SR_SHIPPED / name).read_bytes() for name in ("prior.safetensors", "sed/psnr.safetensors")]

    def use(data: bytes, _: np.random.Generator) -> None:
        path.write_bytes(data)
        load_prior(path) if b"decoder." in data[:20_000] else read_generator(path)

    return files, use


def extractor(folder: Path) -> tuple[Sequence[bytes], Use]:
    """Weights of other people's networks: ``.npz``, ``.safetensors`` and state dicts."""
    network = nn.Conv2d(3, 4, 3)
    state = {name: value.detach() for name, value in network.state_dict().items()}
    files = [io.BytesIO(), io.BytesIO()]
    np.savez(files[0], **{name: value.numpy() for name, value in state.items()})
    torch.save(state, files[1])

    def use(data: bytes, _: np.random.Generator) -> None:
        path = folder / ("weights.npz" if b"weight.npy" in data[:200] else "weights.pt")
        path.write_bytes(data)
        load_frozen(lambda: nn.Conv2d(3, 4, 3), path, "a network", "take another file")

    return [file.getvalue() for file in files], use


def record(folder: Path) -> tuple[Sequence[bytes], Use]:
    """An episode record, read and replayed."""
    photographs, box, path = folder / "photographs", folder / "tools", folder / "episode.json"
    write_photographs(photographs)
    write_toolbox(box)
    env = ImageRestoreEnv(images=str(photographs), toolbox=str(box), patch_size=40, severity="any", upscale=(1,))
    env.reset(seed=0)
    for action in (0, 1):
        env.step(np.int64(action))

    def use(data: bytes, _: np.random.Generator) -> None:
        path.write_bytes(data)
        EpisodeRecord.load(path).validate()

    return [env.record().to_json().encode()], use


def level_set(name: str) -> Callable[[Path], tuple[Sequence[bytes], Use]]:
    """A level set of which one file is mutated, or all of it in one file: opened and played."""

    def prepare(folder: Path) -> tuple[Sequence[bytes], Use]:
        photographs, path = folder / "photographs", folder / "set"
        write_photographs(photographs)
        write_toolbox(folder / "tools")
        task = Task(images=str(photographs), toolbox=str(folder / "tools"), patch_size=40, upscale=(1,))
        levels = build_levels(task, path, count=3, depth=1)
        play(path, photographs)  # makes the database
        if name == PACKED:
            path = folder / PACKED
            levels.pack(path)
        file = path if name == PACKED else path / name

        def use(data: bytes, rng: np.random.Generator) -> None:
            replacement = folder / "mutated"
            replacement.write_bytes(data)
            replacement.replace(file)  # a new file: the old one may be mapped
            if name != PACKED:
                os.utime(path / MANIFEST, ns=(0, int(rng.integers(2**60))))  # opened sets are kept by its time
            open_levels(path)
            play(path, photographs, steps=1 if name == PACKED else 2)

        return [file.read_bytes()], use

    return prepare


def play(levels: Path, photographs: Path, steps: int = 2) -> None:
    """Play a level set for a step that is stored, and another that is computed or kept."""
    env = ImageRestoreVectorEnv(2, levels=levels, images=str(photographs), observation="spectrum", max_steps=steps)
    env.reset(seed=0)
    for actions in ([0, 1], [1, 0])[:steps]:
        env.step(np.array(actions))


def checkpoint(folder: Path) -> tuple[Sequence[bytes], Use]:
    """The checkpoint of a network's training, resumed."""
    settings = NetworkTraining(out=folder, steps=2, batch_size=1)
    path = folder / "checkpoints" / "network.pt"

    def train() -> None:
        torch.manual_seed(0)
        network = nn.Conv2d(3, 3, 1)
        train_network(
            settings,
            "network",
            network,
            lambda step: torch.full((1, 3, 4, 4), step / 2),
            lambda batch: network(batch).square().mean(),
            Validation(lambda: {"psnr/output": 1.0}, 60.0),
        )
        shutil.rmtree(folder / "logs", ignore_errors=True)  # nothing to draw

    def use(data: bytes, _: np.random.Generator) -> None:
        path.write_bytes(data)
        train()

    train()
    return [path.read_bytes()], use


def hyperparameters(_: Path) -> tuple[Sequence[bytes], Use]:
    """The YAML of an algorithm's hyperparameters."""
    from importlib import resources

    folder = resources.files("agents") / "hyperparameters"

    def use(data: bytes, _: np.random.Generator) -> None:
        parse_hyperparameters(data, "file.yml")

    return [(folder / name).read_bytes() for name in ("ppo_lstm.yml", "drqn.yml")], use


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "images": Target(decoder, share=4),
        "restore": Target(command),
        "tool weights": Target(tool_weights, OF_SAFETENSORS),
        "toolbox.json": Target(toolbox, OF_JSON),
        "policy": Target(policy, OF_SAFETENSORS),
        "super-resolution": Target(super_resolution, OF_SAFETENSORS),
        "extractor": Target(extractor),
        "record": Target(record, OF_JSON),
        MANIFEST: Target(level_set(MANIFEST), OF_JSON),
        **{file: Target(level_set(file)) for file in ("seed.npy", "upscale.npy", "distortion.npy", DATABASE, PACKED)},
        "checkpoint": Target(checkpoint),
        "YAML": Target(hyperparameters),
    }
)
"""Everything that reads files."""


def write_toolbox(folder: Path) -> None:
    """A toolbox of small networks with random weights."""
    torch.manual_seed(0)
    recipe = {"steps": 3, "seconds": 1.5, "command": "imagerestore train tools", "earlier": [{"steps": 2}]}
    weights = [ToolWeights(name, "three_layer", NETWORKS["three_layer"]().state_dict(), recipe) for name in TOOLS]
    update_toolbox(folder, weights)


def write_photographs(folder: Path) -> None:
    """Two photographs of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((160, 130)).save(folder / f"{number}.png")
