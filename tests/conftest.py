from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


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
