"""Seeded rollouts and restorations give the numbers that were recorded, to the rounding of another processor."""

import json
from typing import Any

import pytest

from tests.golden.recording import EXPECTED, RESTORED, TOOLBOXES, UPSCALES, restoration, single_rollout, vector_rollout

RECORDED: dict[str, Any] = json.loads(EXPECTED.read_text())
DB, GREY_LEVELS = 2e-3, 0.02


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Lists entry by entry; floats within the tolerance, everything else equal."""
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance)
    else:
        assert found == expected


@pytest.mark.parametrize("upscale", UPSCALES)
@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_single_environment(toolbox: str, upscale: int) -> None:
    assert_close(single_rollout(toolbox, upscale), RECORDED[f"single/{toolbox}/{upscale}"], DB)


@pytest.mark.parametrize("upscale", UPSCALES)
@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_vector_environment(toolbox: str, upscale: int) -> None:
    assert_close(vector_rollout(toolbox, upscale), RECORDED[f"vector/{toolbox}/{upscale}"], DB)


@pytest.mark.parametrize(("toolbox", "policy", "scale"), RESTORED)
@pytest.mark.parametrize("photo", range(5))
def test_restoration(photo: int, toolbox: str, policy: str | None, scale: int) -> None:
    expected = RECORDED[f"restore/{photo}/{toolbox}/{policy}/{scale}"]
    assert_close(restoration(photo, toolbox, policy, scale), expected, GREY_LEVELS)
