"""A level set that the tests of this folder play."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.level_sets import small_levels


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three steps are stored; the third is computed."""
    return small_levels(tmp_path_factory.mktemp("levels"), depth=2, pixels=True)
