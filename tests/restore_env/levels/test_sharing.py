"""What of a level set is stored, packed into one file, and found again from its photographs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv, Task
from restore_env.episodes.spectrum import LOWEST
from restore_env.levels.building import build_levels, resplit
from restore_env.levels.store import DATABASE, LevelError, LevelSet, open_levels
from tests.support.level_sets import TOOLBOX, level_task, small_levels, write_photographs
from tests.support.toolkit import pixelwise_toolbox


def test_a_packed_set_plays_the_same(levels: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.levels"
    opened: LevelSet = open_levels(levels)
    opened.pack(file)
    one, two = (ImageRestoreEnv(levels=path, max_steps=2) for path in (levels, file))
    assert data_equivalence(one.reset(seed=3), two.reset(seed=3), exact=True)
    assert data_equivalence(one.step(np.int64(1)), two.step(np.int64(1)), exact=True)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(LevelError, match="not a level set"):
        open_levels(file)


def test_a_packaged_set_has_a_name_and_its_photographs_are_needed_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = write_photographs(tmp_path / "photos")
    build_levels(level_task(photographs), tmp_path / "set", count=2, depth=1).pack(tmp_path / "tiny.levels")
    monkeypatch.setattr("restore_env.levels.store.PACKAGED", tmp_path)
    env = ImageRestoreEnv(levels="tiny", toolbox=TOOLBOX, max_steps=3, observation="spectrum", info="full")
    _, info = env.reset(seed=0)
    assert info["photograph_name"] in {path.name for path in photographs.iterdir()}
    env.step(np.int64(0))
    with pytest.raises(LevelError, match="pass them as images"):
        env.step(np.int64(1))
    env = ImageRestoreEnv(levels="tiny", toolbox=TOOLBOX, max_steps=3, observation="spectrum", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.int64(0))
    empty = env.render()
    env = ImageRestoreEnv(
        levels="tiny",
        toolbox=TOOLBOX,
        max_steps=3,
        observation="spectrum",
        render_mode="rgb_array",
        images=str(photographs),
    )
    env.reset(seed=0)
    env.step(np.int64(0))
    drawn = env.render()
    assert empty is not None
    assert drawn is not None
    assert drawn.std() > 2 * empty.std()
    env.step(np.int64(1))
    with pytest.raises(LevelError, match=r"use the name of a packaged one \(tiny\)"):
        open_levels("huge")


def test_photographs_are_found_among_others_and_must_be_the_same(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photos", 6)
    built = build_levels(resplit(level_task(folder), "train"), tmp_path / "set", count=3, depth=0)

    def first_rewards(images: Path | None) -> list[float]:
        env = ImageRestoreVectorEnv(3, levels=built.path, toolbox=TOOLBOX, observation="spectrum", images=images)
        env.reset(options={"episode_seed": built.arrays["seed"]})
        return list(env.step(np.zeros(3, np.int64))[1])

    expected = first_rewards(None)
    (built.path / DATABASE).unlink()
    assert first_rewards(folder) == expected
    (built.path / DATABASE).unlink()
    for path in sorted(folder.iterdir()):
        cv2.imwrite(str(path), np.zeros((280, 300, 3), np.uint8))
    with pytest.raises(LevelError, match="other photographs with the same names"):
        first_rewards(folder)


def test_a_packed_set_names_no_folder(levels: Path, tmp_path: Path) -> None:
    opened = open_levels(levels)
    manifest = replace(opened.manifest, toolbox="/home/someone/tools", images="/home/someone/photos")
    LevelSet(opened.path, manifest, opened.arrays).pack(tmp_path / "shared.levels")
    packed = open_levels(tmp_path / "shared.levels").manifest
    assert (packed.toolbox, packed.images) == ("tools", None)
    assert not any("/" in name for name in packed.photographs)


def test_a_task_of_objects_cannot_be_stored(tmp_path: Path) -> None:
    with pytest.raises(LevelError, match="toolbox must be given by name"):
        build_levels(Task(toolbox=pixelwise_toolbox()), tmp_path / "out", count=1)


def test_what_is_observed_after_the_last_step_need_not_be_stored(levels: Path, tmp_path: Path) -> None:
    small = small_levels(tmp_path, depth=2, pixels=True, last_observed=False)
    assert open_levels(small).arrays["image"].shape[1] == 1 + 4
    for observation in ("image", "spectrum"):
        whole, lean = (ImageRestoreEnv(levels=path, observation=observation, max_steps=2) for path in (levels, small))
        assert data_equivalence(whole.reset(seed=1), lean.reset(seed=1), exact=True)
        assert data_equivalence(whole.step(np.int64(0)), lean.step(np.int64(0)), exact=True)
        last = [env.step(np.int64(1)) for env in (whole, lean)]
        assert data_equivalence(last[0][1:], last[1][1:], exact=True)
        assert not last[1][0]["image"].any() if observation == "image" else (last[1][0]["spectrum"] == LOWEST).all()
    with pytest.raises(LevelError, match=r"no observations after 2 step\(s\): lower max_steps"):
        ImageRestoreEnv(levels=small, toolbox=TOOLBOX, max_steps=3)


def test_what_a_set_names_is_not_imported(tmp_path: Path) -> None:
    levels = small_levels(tmp_path, depth=1)
    env = ImageRestoreEnv(levels=levels, observation="spectrum", max_steps=2)
    env.reset(seed=0)
    env.step(np.int64(0))  # is looked up
    with pytest.raises(ValueError, match=r"toolbox '.*level_sets:toolbox' comes from a data file"):
        env.step(np.int64(0))  # has to be computed
    env = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="spectrum", max_steps=2)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.int64(0))
    with pytest.raises(LevelError, match="was computed with toolbox"):
        ImageRestoreEnv(levels=levels, toolbox="os:abort", observation="spectrum")


@pytest.mark.parametrize(
    ("field", "value"),
    [("depth", 10**9), ("tools", [["a"]]), ("scales", []), ("upscale", [0]), ("toolbox", 3), ("pixels", "no")],
)
def test_a_manifest_of_other_kinds_is_one_line(field: str, value: object, tmp_path: Path) -> None:
    manifest = small_levels(tmp_path, depth=0) / "levels.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), field: value}))
    with pytest.raises(LevelError, match=rf"\A.*levels\.json: {field} is .*\Z"):
        open_levels(manifest.parent)
