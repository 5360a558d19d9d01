"""Environments as users make them: toolboxes by name, severities as numbers, processes by every start method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from restore_env import IDS
from tests.support.toolkit import photographs
from tools_zoo import load_toolbox
from tools_zoo.toolboxes import SHIPPED

ASYNC = """
import gymnasium as gym, restore_env
if __name__ == "__main__":
    kwargs = {{"context": "{}"}}
    envs = gym.make_vec("ImageRestore-v0", num_envs=2, vectorization_mode="async", vector_kwargs=kwargs)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    envs.close()
"""


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_environments_run_in_processes(context: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ASYNC.format(context))
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-W", "ignore", str(script)], env=environment, timeout=240, check=True)


@pytest.mark.parametrize("toolbox", ["classic", SHIPPED / "classic", str(SHIPPED / "classic")])
def test_a_toolbox_has_a_name_or_a_folder(toolbox: Any) -> None:
    env: Any = gym.make("ImageRestore-v0", images=photographs(1), toolbox=toolbox)
    assert env.unwrapped.toolbox.names == load_toolbox("classic").names
    assert env.reset(seed=0)[1]["upscale"] == 1


def test_the_specification_of_a_named_toolbox_is_json() -> None:
    env = gym.make("ImageRestore-v0", toolbox="pure", severity="mild")
    assert env.spec is not None
    again: Any = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.task.toolbox == "pure"
    assert np.array_equal(again.reset(seed=1)[0]["image"], env.reset(seed=1)[0]["image"])


@pytest.mark.parametrize("severity", [15, 15.0, np.int64(15)])
def test_a_severity_is_a_number(severity: Any) -> None:
    starts = [gym.make("ImageRestore-v0", severity=value).reset(seed=0)[0] for value in (severity, "15")]
    assert np.array_equal(starts[0]["image"], starts[1]["image"])


@pytest.mark.parametrize("severity", [15.5, None, (12, 17), True])
def test_any_other_severity_is_refused_with_what_is_right(severity: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown severity .* a number from 1 to 28 or a range"):
        gym.make("ImageRestore-v0", severity=severity)


@pytest.mark.parametrize("observation", [None, 5, [], [3], "steps_left", ("image", "image")])
def test_any_other_observation_is_refused_with_what_is_right(observation: Any) -> None:
    with pytest.raises(ValueError, match="observation must be one of image, spectrum, both, or a list"):
        gym.make("ImageRestore-v0", observation=observation)


class TestIds:
    @pytest.mark.parametrize("env_id", IDS)
    def test_are_made_and_pass_the_checker(self, env_id: str) -> None:
        env: Any = gym.make(env_id)
        check_env(env.unwrapped)
        for name, value in IDS[env_id].items():
            assert getattr(env.unwrapped.task, name) == value
        assert env.spec is not None
        assert gym.envs.registration.EnvSpec.from_json(env.spec.to_json()).id == env_id
        envs = gym.make_vec(env_id, num_envs=2)
        assert envs.single_observation_space == env.observation_space
        envs.reset(seed=0)
        assert np.isfinite(envs.step(envs.action_space.sample())[1]).all()

    def test_name_their_level_sets(self) -> None:
        named = {env_id: arguments["levels"] for env_id, arguments in IDS.items() if "levels" in arguments}
        assert named == {
            f"ImageRestore{box.title()}{part.title()}-v0": f"{box}-{part}"
            for box in ("mixed", "pure")
            for part in ("train", "test")
        }

    def test_arguments_change_a_variant(self) -> None:
        env: Any = gym.make("ImageRestorePriced-v0", cost_weight=0.25, severity="mild")
        assert (env.unwrapped.task.cost_weight, env.unwrapped.task.upscale) == (0.25, (1,))
