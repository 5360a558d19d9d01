"""The environments in Gymnasium: the checker, copies, infos, wrappers and vectorization modes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_checker import data_equivalence as same
from gymnasium.wrappers import vector as vector_wrappers

from restore_env import IDS, FunctionTool, ImageRestoreEnv, ImageRestoreError, Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox

IMAGE = {"observation": ("image",), "flatten": True}
SPECTRUM = {"observation": "spectrum", "flatten": True}
DRAWN = {"render_mode": "rgb_array"}
N = 3


def toolbox() -> Toolbox:
    return pixelwise_toolbox(super_resolver=True)


TASK: dict[str, Any] = {
    "images": photographs(),
    "toolbox": "tests.restore_env.test_gymnasium:toolbox",
    "patch_size": 40,
    "upscale": (1, 4),
}


def make(**arguments: Any) -> Any:
    return gym.make("ImageRestore-v0", **{**TASK, **arguments})


def make_vec(**arguments: Any) -> Any:
    return gym.make_vec("ImageRestore-v0", num_envs=N, **{**TASK, **arguments})


def identity(value: Any) -> Any:
    return value


class TestChecker:
    @pytest.mark.parametrize("arguments", [{}, IMAGE, SPECTRUM, {"observation": "both", "info": "full"}, DRAWN])
    def test_passes_as_it_comes(self, arguments: dict[str, Any]) -> None:
        check_env(make(**arguments).unwrapped)

    @pytest.mark.parametrize("name", IDS)
    def test_passes_for_every_id(self, name: str) -> None:
        check_env(gym.make(name).unwrapped, skip_render_check=True)

    def test_a_window_is_announced_only_where_there_is_a_display(self) -> None:
        if "human" not in ImageRestoreEnv.metadata["render_modes"]:
            with pytest.raises(ValueError, match=r'needs a display; use render_mode="rgb_array"'):
                ImageRestoreEnv(render_mode="human")


def continued(env: Any, vector: bool) -> list[Any]:
    """Everything that the next steps return."""
    rng, results = np.random.default_rng(9), []
    for _ in range(7):
        results.append(env.step(rng.integers(0, 5, N) if vector else rng.integers(5)))
        if not vector and results[-1][2]:
            results.append((env.reset(), env.render()))
    return [*results, env.render()]


def deep_copy(env: Any) -> Callable[[], Any]:
    other = copy.deepcopy(env)
    return lambda: other


def pickled(env: Any) -> Callable[[], Any]:
    data = pickle.dumps(env)
    return lambda: pickle.loads(data)


def restored(env: Any) -> Callable[[], Any]:
    state = env.unwrapped.clone_state()

    def back() -> Any:
        env.unwrapped.restore_state(state)
        return env

    return back


def restored_from_a_file(env: Any) -> Callable[[], Any]:
    data = pickle.dumps(env.unwrapped.clone_state())

    def back() -> Any:
        env.unwrapped.restore_state(pickle.loads(data))
        return env

    return back


@pytest.mark.parametrize("fork", [deep_copy, pickled, restored, restored_from_a_file])
@pytest.mark.parametrize("arguments", [{}, {"observation": "both", **DRAWN}, SPECTRUM])
class TestForks:
    def test_have_the_future_of_a_single_environment(self, arguments: Any, fork: Any) -> None:
        env = make(**arguments).unwrapped  # of the wrapped one Gymnasium's OrderEnforcing has a state, too
        env.reset(seed=3)
        env.step(np.int64(1))
        forked = fork(env)
        expected = continued(env, vector=False)
        assert same(continued(forked(), vector=False), expected)
        assert not same(expected, continued(env, vector=False))

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
    def test_have_the_future_of_a_vector_environment(self, arguments: Any, fork: Any, mode: str) -> None:
        env = make_vec(**arguments, autoreset_mode=mode)
        env.reset(seed=3)
        env.step(np.array([0, 4, 1]))
        forked = fork(env)
        expected = continued(env, vector=True)
        assert same(continued(forked(), vector=True), expected)


@pytest.mark.parametrize("fork", [deep_copy, pickled])
def test_a_copy_can_be_made_of_a_wrapped_environment_and_before_the_first_reset(fork: Any) -> None:
    for env in (make(), wrappers.RecordEpisodeStatistics(make(render_mode="rgb_array"))):
        for _ in range(2):
            other = fork(env)()
            assert same(env.reset(seed=1), other.reset(seed=1))
    vector = make_vec()
    assert same(fork(vector)().reset(seed=1), vector.reset(seed=1))


def test_a_copy_does_not_move_the_original() -> None:
    env = make().unwrapped
    env.reset(seed=0)
    before = env.clone_state()
    other = copy.deepcopy(env)
    other.step(np.int64(2))
    assert not env.episodes.actions[0]
    with pytest.raises(ValueError, match=r"3 slot\(s\), the environment 1"):
        env.restore_state(make_vec().clone_state())
    env.restore_state(before)
    assert env.step(np.int64(2))[1] == other.episodes.progress.returns[0]


class TestInfos:
    def test_the_mask_samples_actions(self) -> None:
        env = make()
        for seed in range(6):
            observation, info = env.reset(seed=seed)
            terminated = False
            while not terminated:
                assert info["action_mask"].dtype == np.int8
                assert np.array_equal(info["action_mask"], observation["action_mask"])
                assert np.array_equal(info["action_mask"], env.get_wrapper_attr("action_masks")())
                action = env.action_space.sample(info["action_mask"])
                assert info["action_mask"][action]
                observation, _, terminated, _, info = env.step(action)

    def test_the_masks_of_a_vector_environment_sample_actions(self) -> None:
        envs = make_vec()
        _, infos = envs.reset(seed=0)
        for _ in range(6):
            actions = envs.action_space.sample(tuple(infos["action_mask"]))
            assert infos["action_mask"][np.arange(N), actions].all()
            infos = envs.step(actions)[-1]

    def test_are_numbers_of_one_shape_and_type(self) -> None:
        env, shapes = make(), set()
        for seed in range(4):
            infos = [env.reset(seed=seed)[1]]
            infos += [env.step(action)[4] for action in (0, 1, 4)]
            for info in infos:
                arrays = {key: np.asarray(value) for key, value in info.items()}
                assert all(hasattr(value, "dtype") for value in info.values())
                shapes.add(tuple((key, array.shape, array.dtype.str) for key, array in arrays.items()))
        assert len(shapes) == 1
        assert not any(kind.lstrip("<|")[0] in "OUS" for _, _, kind in shapes.pop())


class TestSteps:
    @pytest.mark.parametrize("action", [np.array([3]), [3], (0, 1)])
    def test_an_action_is_one_number(self, action: Any) -> None:
        env = make().unwrapped
        env.reset(seed=0)
        with pytest.raises(ValueError, match="expected one whole number as the action"):
            env.step(action)

    def test_a_tool_or_reward_that_returns_nan_is_an_error(self) -> None:
        broken = FunctionTool("broken", lambda images: images * float("nan"))
        for env, action in (
            (make(toolbox=Toolbox([broken])), np.int64(0)),
            (make_vec(toolbox=Toolbox([broken])), np.zeros(N, dtype=np.int64)),
        ):
            env.reset(seed=0)
            with pytest.raises((ValueError, ImageRestoreError), match=r"broken.*finite"):
                env.step(action)
        env = make(reward=lambda images, targets: (images - targets).mean((1, 2, 3)) * float("nan"))
        with pytest.raises(ValueError, match="the reward must return finite scores, got nan"):
            env.reset(seed=0)

    def test_small_batches_run_on_one_thread(self) -> None:
        threads = []

        def counted(images: torch.Tensor) -> torch.Tensor:
            threads.append(torch.get_num_threads())
            return images

        before = torch.get_num_threads()
        torch.set_num_threads(3)
        env = make(toolbox=Toolbox([FunctionTool("counted", counted)]))
        env.reset(seed=0)
        env.step(np.int64(0))
        assert torch.get_num_threads() == 3
        torch.set_num_threads(before)
        assert threads == [1]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_the_synchronous_mode_equals_the_native_one(mode: str) -> None:
    native = make_vec(autoreset_mode=mode)
    reference = gym.make_vec(
        "ImageRestore-v0",
        num_envs=N,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode(mode)},
        **TASK,
    )
    assert same(native.reset(seed=2), reference.reset(seed=2))
    for actions in ([0, 1, 4], [2, 0, 1], [1, 1, 1]):
        ours, theirs = native.step(np.array(actions)), reference.step(np.array(actions))
        assert same(ours, theirs)
        if mode == "Disabled" and ours[2].any():
            mask = {"reset_mask": ours[2]}
            assert same(native.reset(options=dict(mask)), reference.reset(options=dict(mask)))


WRAPPERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("AddRenderObservation", DRAWN, {}),
    ("AddRenderObservation", {**DRAWN, **SPECTRUM}, {"render_only": False}),
    ("AddWhiteNoise", DRAWN, {"probability_of_noise_per_pixel": 0.3}),
    ("ArrayConversion", {}, {"env_xp": np, "target_xp": torch}),
    ("Autoreset", {}, {}),
    ("ClipReward", {}, {"min_reward": -1, "max_reward": 1}),
    ("DelayObservation", {}, {"delay": 1}),
    ("DiscretizeObservation", {"observation": ("steps_left",), "flatten": True}, {"bins": 4}),
    ("DtypeObservation", IMAGE, {"dtype": np.float32}),
    ("FilterObservation", {}, {"filter_keys": ["image", "steps_left"]}),
    ("FlattenObservation", {}, {}),
    ("FrameStackObservation", {}, {"stack_size": 2}),
    ("FrameStackObservation", IMAGE, {"stack_size": 2, "padding_type": "zero"}),
    ("GrayscaleObservation", IMAGE, {}),
    ("HumanRendering", DRAWN, {}),
    ("MaxAndSkipObservation", IMAGE, {"skip": 2}),
    ("NormalizeObservation", SPECTRUM, {}),
    ("NormalizeReward", {}, {}),
    ("NumpyToTorch", {}, {}),
    ("ObstructView", DRAWN, {"obstructed_pixels_ratio": 0.3, "obstruction_width": 5}),
    ("OrderEnforcing", {}, {}),
    ("PassiveEnvChecker", {}, {}),
    ("RecordEpisodeStatistics", {}, {}),
    ("RecordVideo", DRAWN, {"video_folder": "videos"}),
    ("RenderCollection", DRAWN, {}),
    ("RepeatAction", {}, {"num_repeats": 2}),
    ("RescaleObservation", SPECTRUM, {"min_obs": np.float32(0), "max_obs": np.float32(1)}),
    ("ReshapeObservation", IMAGE, {"shape": (40, 120)}),
    ("ResizeObservation", IMAGE, {"shape": (20, 20)}),
    ("StickyAction", {}, {"repeat_action_probability": 0.5}),
    ("TimeAwareObservation", {"max_episode_steps": 3}, {}),
    ("TimeLimit", {}, {"max_episode_steps": 2}),
    ("TransformAction", {}, {"func": identity, "action_space": None}),
    ("TransformObservation", {}, {"func": identity, "observation_space": None}),
    ("TransformReward", {}, {"func": identity}),
]
NOT_APPLICABLE = {
    "AtariPreprocessing": "an Atari emulator",
    "ClipAction": "an action space of real numbers",
    "DiscretizeAction": "an action space of real numbers",
    "RescaleAction": "an action space of real numbers",
    "JaxToNumpy": "an environment in JAX",
    "JaxToTorch": "an environment in JAX",
}
"""What these wrappers need and the environment has not."""
VECTOR_WRAPPERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("ArrayConversion", {}, {"env_xp": np, "target_xp": torch}),
    ("ClipReward", {}, {"min_reward": -1, "max_reward": 1}),
    ("DictInfoToList", {}, {}),
    ("DictInfoToList", {"info": "full", "autoreset_mode": "SameStep"}, {}),
    ("DtypeObservation", IMAGE, {"dtype": np.float32}),
    ("FilterObservation", {}, {"filter_keys": ["image", "steps_left"]}),
    ("FlattenObservation", {}, {}),
    ("GrayscaleObservation", IMAGE, {}),
    ("HumanRendering", DRAWN, {}),
    ("NormalizeObservation", SPECTRUM, {}),
    ("NormalizeReward", {"autoreset_mode": "SameStep"}, {}),
    ("NumpyToTorch", {}, {}),
    ("NumpyToTorch", {**SPECTRUM, "autoreset_mode": "Disabled"}, {}),
    ("RecordEpisodeStatistics", {}, {}),
    ("RecordEpisodeStatistics", {"autoreset_mode": "SameStep"}, {}),
    ("RecordVideo", DRAWN, {"video_folder": "videos"}),
    ("RescaleObservation", SPECTRUM, {"min_obs": 0, "max_obs": 1}),
    ("ReshapeObservation", IMAGE, {"shape": (40, 120)}),
    ("ResizeObservation", IMAGE, {"shape": (20, 20)}),
    ("TransformAction", {}, {"func": identity}),
    ("TransformObservation", {}, {"func": identity}),
    ("TransformReward", {}, {"func": identity}),
    ("VectorizeTransformAction", {}, {"wrapper": wrappers.TransformAction, "func": identity, "action_space": None}),
    ("VectorizeTransformObservation", SPECTRUM, {"wrapper": wrappers.TransformObservation, "func": identity}),
    ("VectorizeTransformReward", {}, {"wrapper": wrappers.TransformReward, "func": identity}),
]


def wrapped(namespace: Any, name: str, env: Any, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    if name == "HumanRendering":
        pytest.importorskip("pygame")
        monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    if name == "VectorizeTransformObservation":
        arguments = {**arguments, "observation_space": env.single_observation_space}
    try:
        return getattr(namespace, name)(env, **arguments)
    except (DependencyNotInstalled, ImportError) as missing:
        pytest.skip(f"{name}: {missing}")


def numbers(value: Any) -> Any:
    """Tensors as arrays, in nested dictionaries."""
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.filterwarnings("ignore:.*overflow encountered in cast:RuntimeWarning")
class TestWrappers:
    def test_all_are_in_the_tables(self) -> None:
        tried = {name for name, *_ in WRAPPERS}
        assert tried | NOT_APPLICABLE.keys() == {*wrappers.__all__} - {"vector"}
        assert {name for name, *_ in VECTOR_WRAPPERS} | NOT_APPLICABLE.keys() >= {*vector_wrappers.__all__}

    @pytest.mark.parametrize(("name", "arguments", "options"), WRAPPERS)
    def test_single(
        self, name: str, arguments: Any, options: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        env = wrapped(wrappers, name, make(**arguments), options, monkeypatch)
        env.reset(seed=0)
        for action in (0, 2, 4, 1, 3):
            given = torch.tensor(action) if name in ("ArrayConversion", "NumpyToTorch") else np.int64(action)
            observation, reward, terminated, truncated, _ = env.step(given)
            assert env.observation_space.contains(numbers(observation))
            assert np.isfinite(float(reward))
            env.render()
            if terminated or truncated:
                env.reset()
        env.close()

    @pytest.mark.parametrize(("name", "arguments", "options"), VECTOR_WRAPPERS)
    def test_vector(
        self, name: str, arguments: Any, options: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        env = wrapped(vector_wrappers, name, make_vec(**arguments), options, monkeypatch)
        env.reset(seed=0)
        for action in (0, 2, 1):
            actions = np.full(N, action)
            given = torch.from_numpy(actions) if name in ("ArrayConversion", "NumpyToTorch") else actions
            observations, rewards, *_ = env.step(given)
            assert env.observation_space.contains(numbers(observations))
            assert np.isfinite(np.asarray(rewards)).all()
        env.close()

    @pytest.mark.parametrize("name", ["ClipAction", "DiscretizeAction", "RescaleAction"])
    def test_those_for_real_actions_refuse(self, name: str) -> None:
        options = {"DiscretizeAction": {"bins": 3}, "RescaleAction": {"min_action": 0, "max_action": 1}}
        with pytest.raises(TypeError, match="Box"):
            getattr(wrappers, name)(make(), **options.get(name, {}))
