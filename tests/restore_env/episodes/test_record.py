from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restore_env import EpisodeRecord, ImageRestoreEnv, ImageRestoreVectorEnv
from tests.support.toolkit import photographs, pixelwise_toolbox


def factory() -> Any:
    return pixelwise_toolbox()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, photo in enumerate(photographs()):
        Image.fromarray(photo).save(tmp_path / f"{index}.png")
    return tmp_path


FACTORY = "tests.restore_env.episodes.test_record:factory"


def played(folder: Path) -> tuple[ImageRestoreEnv, EpisodeRecord]:
    env = ImageRestoreEnv(images=str(folder), severity="mild", patch_size=40, toolbox=FACTORY)
    env.reset(seed=3)
    env.reset()
    for action in (1, 0, 2):
        env.step(np.int64(action))
    return env, env.record()


def test_a_record_replays_without_its_environment(folder: Path) -> None:
    _, record = played(folder)
    assert len(record.psnr) == 4
    assert record.toolchain == ("dim", "brighten", "invert")
    assert record.validate().okay


def test_a_record_survives_json_and_the_disk(folder: Path) -> None:
    env, record = played(folder)
    record.save(folder / "episode.json")
    again = EpisodeRecord.load(folder / "episode.json")
    assert json.loads(again.to_json()) == json.loads(record.to_json())
    assert again.validate(env).okay


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"psnr": (1.0, 2.0, 3.0, 4.0)}, "PSNR after 0"),
        ({"seed": 1234}, "distortion"),
        ({"actions": (1, 1, 2)}, "toolchain"),
        ({"image": "elsewhere.png"}, "image"),
    ],
)
def test_a_falsified_record_is_found_out(folder: Path, change: dict[str, Any], named: str) -> None:
    env, record = played(folder)
    validation = dataclasses.replace(record, **change).validate(env)
    assert not validation.okay
    assert any(named in difference for difference in validation.differences)


def test_a_vector_slot_records_what_the_single_environment_replays(folder: Path) -> None:
    vector = ImageRestoreVectorEnv(3, images=str(folder), patch_size=40, toolbox=pixelwise_toolbox())
    vector.reset(seed=0)
    vector.step(np.array([0, 1, 2]))
    single = ImageRestoreEnv(images=str(folder), patch_size=40, toolbox=pixelwise_toolbox())
    assert all(vector.record(slot).validate(single).okay for slot in range(3))


def test_ones_own_pair_cannot_be_replayed() -> None:
    env = ImageRestoreEnv(images=photographs(), patch_size=40, toolbox=pixelwise_toolbox())
    pair = photographs(2, 40, 40)
    env.reset(options={"distorted": pair[0], "target": pair[1]})
    with pytest.raises(ValueError, match="user's own"):
        env.record().validate(env)


def test_what_a_record_cannot_hold_must_be_passed() -> None:
    env = ImageRestoreEnv(images=photographs(), patch_size=40, toolbox=pixelwise_toolbox())
    env.reset(seed=0)
    env.step(np.int64(0))
    record = EpisodeRecord.from_json(env.record().to_json())
    assert record.omitted == ("images", "toolbox")
    with pytest.raises(ValueError, match="images, toolbox"):
        record.validate()
    assert record.validate(env).okay


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"image": 1}', "[" * 10**5])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an episode record"):
        EpisodeRecord.from_json(text)


def test_a_file_is_not_imported_from_unless_it_is_trusted(folder: Path) -> None:
    played(folder)[1].save(folder / "episode.json")
    record = EpisodeRecord.load(folder / "episode.json")
    with pytest.raises(ValueError, match=r"toolbox '.*:factory' comes from a data file"):
        record.validate()
    assert record.validate(trusted=True).okay
    altered = json.loads(record.to_json())
    for name in ("toolbox", "distortion"):
        altered["task"] = {"images": str(folder), name: "os:abort"}
        with pytest.raises(ValueError, match=f"{name} 'os:abort' comes from a data file"):
            EpisodeRecord.from_json(json.dumps(altered)).validate()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *((("task", name), "x") for name in ("reward", "cache_dir", "device", "render_mode", "max_steps", "upscale")),
        (("task", "patch_size"), 2**40),
        (("actions",), [10**30, 0, 2]),
        (("seed",), 2**70),
        (("distortion",), []),
        (("task",), []),
    ],
)
def test_a_record_of_other_fields_or_kinds_is_refused(folder: Path, part: tuple[str, ...], value: object) -> None:
    altered = json.loads(played(folder)[1].to_json())
    inside = altered["task"] if len(part) > 1 else altered
    inside[part[-1]] = value
    with pytest.raises(ValueError, match=r"\Anot an episode record: .*\Z"):
        EpisodeRecord.from_json(json.dumps(altered))
