from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from restore_env.errors import ImageRestoreError
from sr_models.prior.categories import ADE20K_CATEGORIES, BACKGROUND, CATEGORIES, IGNORE
from sr_models.prior.labels import HELD_OUT_EVERY, LabelError, LabelledImages, read_labels
from tests.support.scenes import write_scene, write_scenes


def test_every_ade20k_class_falls_into_one_category() -> None:
    mapped = [number for numbers in ADE20K_CATEGORIES.values() for number in numbers]
    assert len(mapped) == len(set(mapped)) == 22
    assert set(ADE20K_CATEGORIES) == set(CATEGORIES) - {CATEGORIES[BACKGROUND]}


def test_pairs_are_read_by_name_from_all_folders(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", 2)
    ids = write_scene(tmp_path / "b", "meadow", 30, 24, seed=5, suffix=".jpg")
    (tmp_path / "b" / "images" / "notes.txt").write_text("no image")
    images = LabelledImages(tmp_path / "a", tmp_path / "b")
    assert len(images) == 3
    pixels, labels = images.pair(2)
    assert pixels.shape == (30, 24, 3)
    assert np.array_equal(labels, ids)
    assert images.categories(2) == tuple(i for i in np.unique(ids).tolist() if i != IGNORE)
    assert not labels.flags.writeable


def test_the_split_is_that_of_the_names_in_each_folder(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", HELD_OUT_EVERY + 1)
    write_scenes(tmp_path / "b", 2)
    kept, held_out = LabelledImages(tmp_path / "a", tmp_path / "b").split()
    assert held_out == [0, HELD_OUT_EVERY, HELD_OUT_EVERY + 1]
    assert sorted([*kept, *held_out]) == list(range(HELD_OUT_EVERY + 3))


def test_a_single_image_is_on_both_sides(tmp_path: Path) -> None:
    write_scenes(tmp_path, 1)
    assert LabelledImages(tmp_path).split() == ([0], [0])


def test_indexed_colours_are_read_by_their_indices(tmp_path: Path) -> None:
    ids = np.array([[0, 3], [7, 255]], np.uint8)
    image = Image.fromarray(ids, "P")
    image.putpalette([128, 10, 20] * 256)
    image.save(tmp_path / "labels.png")
    assert np.array_equal(read_labels(tmp_path / "labels.png"), ids)


def labels(folder: Path) -> Path:
    return folder / "labels" / "scene-00.png"


def save(path: Path, array: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(array).save(path)


def test_bad_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(folder: Path, match: str) -> None:
        with pytest.raises(ImageRestoreError, match=match) as error:
            LabelledImages(folder)
        assert "\n" not in str(error.value)

    def fresh(name: str) -> Path:
        write_scenes(tmp_path / name, 1)
        return tmp_path / name

    refused(tmp_path / "nowhere", "images: no such folder")
    orphan = fresh("orphan")
    save(orphan / "labels" / "other.png", np.zeros((4, 4), np.uint8))
    refused(orphan, r"other\.png: no partner of that name")
    unknown = fresh("unknown")
    save(labels(unknown), np.full((40, 48), 9, np.uint8))
    refused(unknown, r"scene-00\.png: holds the unknown id 9; expected 0 background, .*7 animal, or 255")
    turned = fresh("turned")
    save(labels(turned), np.zeros((48, 40), np.uint8))
    refused(turned, "is 40x48, but its image is 48x40")
    coloured = fresh("coloured")
    save(labels(coloured), np.zeros((40, 48, 3), np.uint8))
    refused(coloured, "has the mode RGB; labels are PNGs of one channel")
    damaged = fresh("damaged")
    labels(damaged).write_bytes(b"no png")
    refused(damaged, "not a readable PNG")
    write_scenes(tmp_path / "small", 1, 15, 20)
    refused(tmp_path / "small", "20x15 is smaller than 16 pixels")
    with pytest.raises(LabelError, match="no labelled folder"):
        LabelledImages()
