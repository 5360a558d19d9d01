"""Policies that predict gains: how tiles decide, the smallest gain, and tools that are taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.restoration.files import Job
from agents.restoration.jobs import as_json, as_line
from agents.restoration.restorer import Restorer
from restore_env.toolbox import FunctionTool, Toolbox, bicubic_upscale
from tests.support.toolkit import photographs


class Predictor:
    """Predicts the same gains for every tile; the first tile of an image may have others."""

    kind = "q"

    def __init__(self, *gains: float, first: tuple[float, ...] | None = None) -> None:
        self.gains, self.first = (*gains, 0.0), None if first is None else (*first, 0.0)
        self.recipe = {"decide": "values"}

    def scores(self, observation: Any, state: Any = None, episode_start: Any = None) -> tuple[Any, None]:
        scores = np.tile(np.array(self.gains, np.float32), (len(observation["image"]), 1))
        if self.first is not None:
            scores[0] = self.first
        return np.where(observation["action_mask"], scores, -np.inf), None

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        return self.scores(observation)[0].argmax(axis=1), None


def toolbox() -> Toolbox:
    """A tool that hardly changes anything, one that lightens, and one that whitens every tenth row."""

    def whiten(images: Any) -> Any:
        images = images.clone()
        images[:, :, ::10] = 1.0
        return images

    return Toolbox(
        [
            FunctionTool("slight", lambda images: images + 0.001, receptive_radius=0),
            FunctionTool("lighten", lambda images: images + 0.05, receptive_radius=0),
            FunctionTool("whiten", whiten, receptive_radius=0),
        ]
    )


def restored(policy: Predictor, **arguments: Any) -> Any:
    grey = np.full((200, 150, 3), 100, np.uint8)
    return Restorer(toolbox(), policy, **arguments).restore(grey)


def test_one_tile_cannot_forbid_a_tool() -> None:
    assert restored(Predictor(0.5, -1.0, -1.0, first=(-60.0, -1.0, -1.0)), max_steps=1).toolchain == ("slight",)


def test_the_mean_of_the_predicted_gains_decides() -> None:
    """Most tiles would stop, but one expects far more of a tool than they would lose."""
    policy = Predictor(-0.1, -9.0, -9.0, first=(30.0, -9.0, -9.0))
    assert restored(policy, max_steps=1).toolchain == ("slight",)
    policy.recipe = {}
    assert restored(policy, max_steps=1).toolchain == ()


@pytest.mark.parametrize(("caution", "chain"), [(0.0, ("slight",)), (0.2, ("slight",)), (0.4, ())])
def test_a_tool_of_too_little_predicted_gain_is_not_applied(caution: float, chain: tuple[str, ...]) -> None:
    assert restored(Predictor(0.3, -1.0, -1.0), caution=caution, max_steps=1).toolchain == chain


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_tool_that_changes_colours_is_taken_back(wrong: int) -> None:
    gains = [1.0, 0.05, 0.05]
    gains[wrong] = 5.0
    result = restored(Predictor(*gains), max_steps=1)
    assert result.taken_back == (toolbox().names[wrong],)
    assert result.toolchain == ("slight",)
    assert len(result.votes) == 1
    assert np.abs(result.image.astype(int) - 100).max() <= 1


@pytest.mark.parametrize(("level", "kept"), [(8, True), (100, False)])
def test_the_mean_of_shadows_may_change(level: int, kept: bool) -> None:
    """Noise is clipped in shadows, which lightens them; where nothing is clipped, nothing may darken."""
    rng = np.random.default_rng(0)
    noisy = (level + rng.normal(0, 20, (80, 90, 3))).round().clip(0, 255).astype(np.uint8)
    tools = Toolbox([FunctionTool("darken", lambda images: (images - 4 / 255).clamp(0, 1), receptive_radius=0)])
    result = Restorer(tools, Predictor(1.0), max_steps=1).restore(noisy)
    assert result.toolchain == (("darken",) if kept else ())


def test_small_shifts_do_not_add_up() -> None:
    tools = Toolbox([FunctionTool("a little", lambda images: images + 0.004, receptive_radius=0)])
    result = Restorer(tools, Predictor(1.0), max_steps=5).restore(photographs(1)[0])
    assert result.toolchain == ("a little",)
    assert result.taken_back == ("a little",)


def test_after_a_super_resolver_colours_are_those_of_its_result() -> None:
    """A super-resolver may shift the mean; the tools after it are compared with what it gave."""
    tools = Toolbox(
        [
            FunctionTool("lighter_x4", lambda images: bicubic_upscale(images) + 0.05, scale=4, receptive_radius=4),
            FunctionTool("slight", lambda images: images + 0.001, receptive_radius=0),
            FunctionTool("back", lambda images: images - 0.05, receptive_radius=0),
        ]
    )
    grey = np.full((80, 70, 3), 100, np.uint8)
    result = Restorer(tools, Predictor(9.0, 1.0, 5.0), max_steps=2, scale=4).restore(grey)
    assert result.toolchain == ("lighter_x4", "slight")
    assert result.taken_back == ("back",)


def test_caution_must_be_a_gain() -> None:
    with pytest.raises(ValueError, match="caution must be 0 dB or more, got -1"):
        Restorer(toolbox(), Predictor(1.0, 1.0, 1.0), caution=-1)


def test_the_predicted_gain_is_told() -> None:
    result = restored(Predictor(1.0, 9.0, -1.0), max_steps=1)
    assert result.predicted_gain == pytest.approx(1.0)
    job = Job(Path("in.png"), Path("out.png"))
    assert as_line(job, result) == "in.png -> out.png: slight; predicted gain +1.0 dB; taken back: lighten"
    row = as_json(job, result)
    assert (row["predicted_gain"], row["taken_back"]) == (pytest.approx(1.0), ["lighten"])
    nothing = restored(Predictor(-1.0, -1.0, -1.0))
    assert nothing.predicted_gain == 0
    assert as_line(job, nothing) == "in.png -> out.png: no tool"


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_large_images_are_worked_on_in_place_with_the_same_result(
    strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To one grey level, since they are held as float16; also where a tool is taken back: the others run again."""

    class Changing(Predictor):
        def scores(self, observation: Any, state: Any = None, episode_start: Any = None) -> tuple[Any, None]:
            self.gains = (2.0, 1.0, 0.5, 0.0) if (observation["last_action"] == 4).all() else (0.1, 5.0, 9.0, 0.0)
            return super().scores(observation)

    tools = Toolbox(
        [FunctionTool("soften", lambda images: (images + images.roll(1, 3)) / 2, receptive_radius=1), *toolbox()][:3]
    )
    results = []
    for most in (2**24, 100):
        monkeypatch.setattr("restore_env.images.samples.LARGE", most)
        results.append(Restorer(tools, Changing()).restore(photographs(1)[0], strength=strength, keep_stages=True))
    whole, in_place = results
    assert whole.toolchain == in_place.toolchain
    assert whole.toolchain[0] == "soften"
    assert whole.taken_back == in_place.taken_back == ("lighten",)
    pairs = [(one.image, other.image) for one, other in zip(whole.stages, in_place.stages, strict=True)]
    for one, other in [*pairs, (whole.image, in_place.image)]:
        assert np.abs(one.astype(int) - other).max() <= 1
