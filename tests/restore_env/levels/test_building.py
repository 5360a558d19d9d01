"""Building level sets: resumable, the same by one thread and by several, with disjoint splits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore_env.distortions.mixed import ROWS
from restore_env.levels.building import build_levels, resplit, split_images
from restore_env.levels.store import DATABASE, LevelError, LevelSet, distortion_text, open_levels
from restore_env.levels.tree import ChainTree
from tests.support.level_sets import COUNT, level_task, write_photographs


def same(one: LevelSet, two: LevelSet) -> bool:
    return all(
        np.array_equal(values, two.arrays[name], equal_nan=values.dtype.kind == "f")
        for name, values in one.arrays.items()
    )


def test_an_interrupted_build_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build_levels(level_task(), tmp_path / "whole", count=COUNT, depth=1)
    monkeypatch.setattr("restore_env.levels.building.PIECE_PIXELS", 2 * 40 * 40)

    def stop(done: int, count: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_levels(level_task(), tmp_path / "parts", count=COUNT, depth=1, report=stop)
    with pytest.raises(LevelError, match=r"of 5 levels are built: run the same 'levels build' again"):
        open_levels(tmp_path / "parts")
    reports: list[tuple[int, int]] = []
    parts = build_levels(level_task(), tmp_path / "parts", count=COUNT, depth=1, report=lambda *at: reports.append(at))
    assert reports[0][0] > 0
    assert reports[-1] == (COUNT, COUNT)
    assert same(whole, parts)


@pytest.mark.parametrize("place", ["os.posix_fallocate", "numpy.lib.format.open_memmap"])
def test_a_full_disk_is_found_before_anything_is_computed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, refuse, raising=False)
    with pytest.raises(LevelError, match=r"set/.*\.npy: No space left on device"):
        build_levels(level_task(), tmp_path / "set", count=2, depth=0)
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    assert len(build_levels(level_task(), tmp_path / "set", count=2, depth=0)) == 2


def test_another_set_is_not_overwritten(tmp_path: Path) -> None:
    build_levels(level_task(), tmp_path / "set", count=2, depth=0)
    with pytest.raises(LevelError, match="other settings"):
        build_levels(level_task(), tmp_path / "set", count=3, depth=0)


@pytest.mark.parametrize(("count", "depth"), [(0, 1), (1, -1)])
def test_impossible_sizes_are_refused(tmp_path: Path, count: int, depth: int) -> None:
    with pytest.raises(LevelError, match="or more, got"):
        build_levels(level_task(), tmp_path / "set", count=count, depth=depth)
    assert not (tmp_path / "set").exists()


def test_train_and_test_sets_share_no_photograph(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photos", 6)
    parts = [set(split_images(folder, split)) for split in ("train", "test")]
    assert len(parts[0]) == 5
    assert len(parts[1]) == 1
    assert not parts[0] & parts[1]
    task = replace(level_task(folder), upscale=(1,))
    built = build_levels(resplit(task, "test"), tmp_path / "set", count=3, depth=0)
    assert [Path(name).name for name in built.manifest.photographs] == ["photo4.png"]
    with pytest.raises(LevelError, match="too few to split"):
        split_images(write_photographs(tmp_path / "few", 4), "test")


def test_chains_are_numbered_by_length() -> None:
    tree = ChainTree(3, 2)
    assert (tree.size, tree.inner, len(tree.chains)) == (13, 4, 13)
    for number, chain in enumerate(tree.chains):
        assert tree.number(chain) == number
        if chain:
            assert tree.chains[tree.parents[number]] == chain[:-1]
            assert tree.tools[number] == chain[-1]
    grown = tree.upscaling(np.array([1, 1, 4]))
    assert grown[tree.number((2, 2))] == 16
    after = tree.constant(np.array([1, 1, 4]), 4)
    assert tree.chains[after[tree.number((2, 2))]] == (2,)
    assert tree.chains[after[tree.number((2, 1))]] == (2, 1)
    gmacs = tree.gmacs(100, np.array([1, 1, 4]), np.array([1e9, 2e9, 0.0]))
    assert gmacs[tree.number((2, 1))] == 2 * 100 * 16


@pytest.mark.parametrize("text", ["", "\udcff", "[]", "null", "{}", '{"format": 2}', "[" * 100_000])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    built = build_levels(level_task(), tmp_path / "set", count=1, depth=0)
    (built.path / "levels.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LevelError) as caught:
        open_levels(built.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("depth", None), ("tools", 3), ("photographs", []), ("macs_per_pixel", [1e308])]
)
def test_a_damaged_field_is_one_line(tmp_path: Path, field: str, value: Any) -> None:
    built = build_levels(level_task(), tmp_path / "set", count=1, depth=0)
    file = built.path / "levels.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(LevelError, match=field):
        open_levels(built.path)


def test_a_set_built_anew_keeps_nothing_of_the_one_before(tmp_path: Path) -> None:
    built = build_levels(level_task(), tmp_path / "set", count=1, depth=0)
    (built.path / DATABASE).touch()
    (built.path / "levels.json").unlink()
    build_levels(level_task(), tmp_path / "set", count=2, depth=0)
    assert not (built.path / DATABASE).exists()


def test_of_a_long_distortion_the_place_is_kept() -> None:
    short, long = ({"top": 3, "transforms": "x" * length} for length in (10, 1000))
    assert json.loads(distortion_text(short)) == short
    assert json.loads(distortion_text(long)) == {"top": 3}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_drawn_distortion_is_kept_with_its_kind(row: Any) -> None:
    for seed in range(200):
        drawn = {"scale": 2 / 3, "top": 163, "left": 140, **row.draw(np.random.default_rng(seed)).as_dict()}
        kept = json.loads(distortion_text(drawn))
        assert kept["kind"] == row.name
        assert kept.keys() == drawn.keys()
        assert all(value == kept[name] or value == pytest.approx(kept[name], rel=1e-3) for name, value in drawn.items())


def test_no_level_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LevelError, match=r"no level set; use the name of a packaged one .*'imagerestore levels build'"):
        open_levels(tmp_path / "none")
