"""Reference scores of level sets, on tiny ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import levels as benchmark
from benchmarks.levels import POLICIES, Setting, every_reward, imitate
from restore_env.levels.optima import optima
from restore_env.levels.store import open_levels
from tests.support.level_sets import small_levels

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two level sets, ``tiny-train`` and ``tiny-test``."""
    folder = tmp_path_factory.mktemp("sets")
    for number, part in enumerate(("train", "test")):
        small_levels(folder / part, depth=2, seed=number).rename(folder / f"tiny-{part}")
    return str(folder / "tiny")


def test_the_table_has_every_policy_between_its_bounds(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "levels.json"
    assert benchmark.main([name, "--steps", "1024", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert all(f"| {policy} |" in text for policy in POLICIES)
    written = json.loads(file.read_text())
    lines = {line["policy"]: line for line in written["sets"][name]}
    best = optima(open_levels(f"{name}-test"), 2)
    assert lines["optimum"]["mean"]["mean"] == pytest.approx(best.best_return.mean())
    assert lines["optimum"]["score"]["mean"] == pytest.approx(1)
    assert all(line["score"]["mean"] <= 1 + 1e-9 for line in lines.values())
    assert lines["best constant chain"]["score"]["mean"] <= 1e-9
    assert lines["greedy oracle"]["worse"] == 0


def test_imitation_learns_rewards_after_every_chain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(f"{name}-train", f"{name}-train", 0, 0)
    opened = open_levels(setting.train)
    observations, rewards = every_reward(setting)
    tree, psnr = opened.tree, opened.arrays["psnr"]
    assert observations.shape[:2] == rewards.shape[:2] == (tree.inner, len(opened))
    for level, upscale in enumerate(opened.arrays["upscale"].tolist()):
        for chain in [()] if upscale > 1 else [(), (0,), (2,)]:
            node = tree.number(chain)
            expected = [psnr[level, tree.number((*chain, tool))] - psnr[level, node] for tool in range(3)]
            np.testing.assert_allclose(rewards[node, level, :3], expected, rtol=1e-5)
    assert not rewards[..., -1].any()
    monkeypatch.setattr(benchmark, "BATCH", 8)
    policy = imitate(setting)
    actions, _ = policy.predict(observations[0])
    lost = rewards[0].max(axis=1) - rewards[0][np.arange(len(opened)), actions]
    assert lost.mean() < 0.3 * (rewards[0].max(axis=1) - rewards[0].mean(axis=1)).mean()


def test_a_set_that_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([str(tmp_path / "none")]) == 2
    assert "none-train: no level set" in capsys.readouterr().err
