from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.bundles import Bundle, random_agent, random_tool, write_bundle
from tests.support.command_line import Shell, write_model
from tools_zoo.catalog import TOOLS


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data that is not part of the project; a test that needs it is skipped without it."""
    folder = Path(os.environ.get("IMAGERESTORE_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip("no shared data: set IMAGERESTORE_SHARED to the folder that holds published/ and data/")
    return folder


@pytest.fixture(scope="session")
def published(shared: Path) -> Path:
    """The published RL-Restore checkpoints, samples and what they give."""
    folder = shared / "published" / "rl-restore"
    if not (folder / "toolbox").is_dir():
        pytest.skip("no published RL-Restore checkpoints: IMAGERESTORE_SHARED has no published/rl-restore/toolbox")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: for small images more of them only wait for one another when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def few_validation_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training of baselines that is validated on six patches."""
    monkeypatch.setattr("benchmarks.baselines.training.VALIDATION_PATCHES", 6)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The arguments that choose a small random toolbox and an agent that always takes a tool."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def shell(
    model: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """The command line with that model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Shell(model, tmp_path, capfd)


@pytest.fixture(scope="session")
def bundles() -> dict[str, Bundle]:
    """Checkpoints like the published ones of RL-Restore, with random weights."""
    rng = np.random.default_rng(0)
    tools = {f"toolbox/tool{i:02d}": random_tool(spec.network(), rng) for i, spec in enumerate(TOOLS, 1)}
    return tools | {"models/model": random_agent(rng)}


@pytest.fixture(scope="session")
def pristine(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of those checkpoints; a test that spoils them takes a copy."""
    folder = tmp_path_factory.mktemp("synthetic")
    for name, variables in bundles.items():
        write_bundle(folder / name, variables)
    return folder
