"""The rules of a step, and that everything that plays episodes follows the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.restoration.pipeline import make_pipeline
from agents.restoration.tiled_episode import TiledEpisode
from benchmarks.compare.upscaling import ThenUpscale
from restore_env import Task
from restore_env.episodes.batch import EpisodeBatch
from restore_env.episodes.observation import Viewer
from restore_env.episodes.transition import StepRules
from restore_env.images.tiling import to_tensor
from restore_env.sampling import own_pair
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Toolbox
from tests.support.toolkit import picture, random_toolbox
from tools_zoo.training.joint import ToolChains

TOOLS = Toolbox([FunctionTool("same", lambda images: images, macs_per_pixel=2e6), BICUBIC_X4])
RULES = StepRules(TOOLS, max_steps=3, cost_weight=0.5, stop_if_worse=True)


class Recorder:
    """A policy that keeps what it observes and takes the tools in turn."""

    patch_size = 63

    def __init__(self) -> None:
        self.observed: list[dict[str, Any]] = []

    def predict(self, observation: Any, state: Any = None, *_: Any, **__: Any) -> tuple[Any, None]:
        self.observed.append({key: np.array(value) for key, value in observation.items()})
        return np.full(len(observation["last_action"]), len(self.observed) - 1), None


def test_super_resolvers_must_not_exceed_the_target() -> None:
    assert RULES.action_mask(np.array([1, 4])).tolist() == [[1, 0, 1], [1, 1, 1]]
    assert RULES.upscaling_mask(RULES.action_mask(np.array([1, 4]))).tolist() == [[0, 0, 0], [0, 1, 0]]
    assert RULES.remaining_after(np.array([4, 4]), np.array([0, 1])).tolist() == [4, 1]


def test_stop_and_the_last_step_end_an_episode() -> None:
    assert RULES.is_last(np.array([0, 2, 0]), np.array([0, 0, 2])).tolist() == [False, True, True]
    before, after = np.array([20.1, 20.1]), np.array([20.0, 20.1])
    assert RULES.has_failed(after, before).tolist() == [True, False]
    assert not StepRules(TOOLS, 3).has_failed(after, before).any()


def test_computation_has_its_price() -> None:
    gmacs = RULES.cost(np.array([0]), np.array([1000]))
    assert gmacs.tolist() == [2.0]
    assert RULES.reward(np.array([20.0]), np.array([23.0]), gmacs).tolist() == [2.0]


@pytest.mark.parametrize("actions", [[0.5], [3], [-1], [0, 1]])
def test_other_actions_are_refused(actions: list[float]) -> None:
    with pytest.raises(ValueError, match=r"expected 1 whole numbers in 0\.\.2 as actions"):
        RULES.checked(np.array(actions), 1)


def test_environment_photographs_joint_training_and_benchmarks_observe_the_same() -> None:
    pixels, toolbox = picture(63, 63), random_toolbox()
    in_environment, whole, joint, wrapped = Recorder(), Recorder(), Recorder(), Recorder()

    episodes = EpisodeBatch(Task(images=[pixels], toolbox=toolbox, max_steps=2), 1)
    slots = np.arange(1)
    episodes.reset(slots, [own_pair(pixels, pixels)])
    while not episodes.over.all():
        episodes.step(slots, in_environment.predict(episodes.observe(slots))[0])

    with_super_resolver = Toolbox([*toolbox, BICUBIC_X4])
    x4_episodes = EpisodeBatch(Task(images=[pixels], toolbox=with_super_resolver, max_steps=2), 1)
    policy, state = ThenUpscale(wrapped, with_super_resolver), None
    x4_episodes.reset(slots, [own_pair(pixels, np.zeros((252, 252, 3), np.uint8))])
    while not x4_episodes.over.all():
        actions, state = policy.predict(x4_episodes.observe(slots), state)
        x4_episodes.step(slots, actions)

    pipeline = make_pipeline(whole, toolbox)
    TiledEpisode(pipeline, to_tensor(pixels), 1, torch.device("cpu"), lambda *_: None, max_steps=2).play()

    networks = {tool.name: tool.network for tool in toolbox}  # type: ignore[attr-defined]
    with torch.no_grad():
        ToolChains(networks, joint, 2)(to_tensor(pixels))

    assert len(in_environment.observed) == len(whole.observed) == len(joint.observed) == 2
    for one, two in zip(in_environment.observed, wrapped.observed, strict=True):
        assert all(np.array_equal(value, two[key]) for key, value in one.items())
    for one, two, three in zip(in_environment.observed, whole.observed, joint.observed, strict=True):
        for key, value in one.items():
            np.testing.assert_allclose(value, two[key], atol=1)
            np.testing.assert_allclose(value, three[key], atol=1)
            assert np.array_equal(value, two[key]) or key == "image"


def test_the_patch_is_the_centre_clipped_and_rounded() -> None:
    images = torch.linspace(-0.5, 1.5, 3 * 5 * 5).reshape(1, 3, 5, 5)
    patch = Viewer(("image",), 3, "uint8").views(images)["image"]
    assert patch.shape == (1, 3, 3, 3)
    assert patch[0, 0, 0, 0] == 0
    assert patch[0, 2, 2, 2] == 255
    exact = Viewer(("image",), 3, "float32").views(images)["image"]
    assert np.array_equal(exact[0, 1, 1], images[0, :, 2, 2].numpy())
