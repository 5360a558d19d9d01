"""Sources of images: folders, files, arrays and pairs, and what is none of these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore_env.images.decoding import ImageError, as_rgb8
from restore_env.images.sources import (
    EMBEDDED,
    NAMED_SKIPPED,
    ImageSource,
    PairSource,
    embedded_paths,
    open_images,
    pair_factor,
    pair_folders,
    short_names,
)
from tests.support.pictures import opened, picture, save


def opened_pairs(images: Any, **options: Any) -> PairSource:
    source = open_images(images, **options)
    assert isinstance(source, PairSource)
    return source


# Folders


def test_folder_is_searched_recursively_and_sorted(tmp_path: Path) -> None:
    names = ["b.png", "a/z.BMP", "a/deep/er/c.tiff"]
    expected = {str(tmp_path / name): save(tmp_path / name, seed=seed) for seed, name in enumerate(names)}
    (tmp_path / "notes.txt").write_text("no image, by its name")
    (tmp_path / "folder.png").mkdir()
    source = opened(tmp_path)
    assert [source.identity(i) for i in range(len(source))] == sorted(expected)
    for i in range(len(source)):
        np.testing.assert_array_equal(source.pixels(i), expected[source.identity(i)])
        assert source.size(i) == (20, 30)


def test_unusable_files_of_a_folder_are_named_in_one_warning(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    save(tmp_path / "small.png", height=9)
    (tmp_path / "text.jpg").write_text("not a photo")
    for number in range(NAMED_SKIPPED + 5):
        (tmp_path / f"{number}.png").touch()
    with pytest.warns(UserWarning, match="skipped") as caught:
        source = open_images(tmp_path, min_size=10)
    assert isinstance(source, ImageSource)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert caught[0].filename == __file__  # it points at the call
    assert message.startswith(f"{NAMED_SKIPPED + 7} image file(s) skipped: ")
    assert message.endswith("; and 7 more")  # it stays readable
    assert message.count("the file is empty") == NAMED_SKIPPED
    assert "small.png: 30x9 is smaller than a patch of 10 pixels" in "".join(source.skipped)
    assert "text.jpg: " in "".join(source.skipped)
    assert [Path(source.identity(i)).name for i in range(len(source))] == ["good.png"]
    assert len(source.skipped) == NAMED_SKIPPED + 7


def test_folders_without_a_usable_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"the folder holds no image files \(png, jpg"):
        open_images(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"none of its 1 image file\(s\) can be used: .*empty.png: the file is empty"):
        open_images(tmp_path)


# Files, lists and arrays


@pytest.mark.parametrize(
    ("name", "reason"),
    [("bad.png", "the file is empty"), ("missing.png", "no such file"), ("small.png", "smaller than a patch of 10")],
)
def test_an_image_named_explicitly_must_be_usable(name: str, reason: str, tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    save(tmp_path / "small.png", height=9)
    (tmp_path / "bad.png").touch()
    for images in (tmp_path / name, [tmp_path / "good.png", tmp_path / name]):
        with pytest.raises(ImageError, match=f"{name}: .*{reason}"):
            open_images(images, min_size=10)


def test_arrays_of_every_kind() -> None:
    rgb = picture(20, 30)
    arrays = [rgb, rgb / 255, (rgb / 255).astype(np.float32), rgb.astype(np.uint16) * 257, rgb[..., 0].copy()]
    source = opened(arrays)
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(source.pixels(i), as_rgb8(array))
        assert source.identity(i).startswith(f"array-{i}-")
    with pytest.raises(ValueError, match="read-only"):
        source.pixels(0)[0, 0] = 0


def test_arrays_of_the_same_bytes_and_other_shapes_are_distinguished() -> None:
    shapes = [(4, 6), (6, 4), (2, 12)]
    source = opened([np.zeros((*shape, 3), np.uint8) for shape in shapes])
    assert [source.pixels(i).shape[:2] for i in range(3)] == shapes


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([], "the list is empty"),
        (np.zeros((8, 8, 3), np.uint8), "a list of paths, arrays or pairs; got ndarray"),
        (5, "got int"),
        ((path for path in ["a.png"]), "got generator"),
        ([picture(8, 8), 5], r"images\[1\]: expected a path or an array .*got int"),
        ([picture(8, 8), (picture(8, 8), picture(8, 8))], r"images\[1\]: expected .*got tuple"),
        ([(picture(8, 8), None)], r"images\[0\]\[1\]: expected .*got NoneType"),
        ([np.full((8, 8, 3), 7.0)], r"image 0: float values must lie in \[0, 1\]"),
        ([np.zeros((8, 8, 3), np.int32)], "image 0: int32 values"),
    ],
)
def test_what_is_no_list_of_images(images: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        open_images(images)


def test_the_embedded_photographs_are_the_default() -> None:
    assert all(path.is_file() for path in embedded_paths())
    source = opened(None, min_size=63 * 4)
    assert [source.identity(i) for i in range(len(source))] == [f"scikit-image/{name}" for name in EMBEDDED]


# Pairs


def test_pairs_of_one_size_and_of_low_resolution(tmp_path: Path) -> None:
    large = save(tmp_path / "target.png", 40, 80)
    source = opened_pairs([(picture(10, 20), large), (picture(40, 80), tmp_path / "target.png")])
    assert len(source) == 2
    assert [source.factor(i) for i in range(2)] == [4, 1]
    np.testing.assert_array_equal(source.distorted.pixels(0), picture(10, 20))
    np.testing.assert_array_equal(source.target.pixels(1), large)
    assert source.identity(0) == source.distorted.identity(0)


@pytest.mark.parametrize("target", [(41, 80), (40, 79), (9, 20), (20, 10), (10, 40)])
def test_pairs_that_do_not_fit(target: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"distorted 20x10 and target {target[1]}x{target[0]} do not fit together"):
        open_images([(picture(10, 20), picture(*target))])
    with pytest.raises(ImageError, match="the pair: distorted"):
        pair_factor((10, 20), target, "the pair")


# Sizes


def test_scaled_images_are_antialiased() -> None:
    stripes = np.zeros((60, 90, 3), np.uint8)
    stripes[:, ::2] = 255
    source = opened([stripes])
    assert source.size(0, 2 / 3) == (40, 60)
    assert source.size(0, 1 / 3) == (20, 30)
    small = source.pixels(0, 1 / 3)
    assert small.shape == (20, 30, 3)
    assert np.abs(small.astype(int) - 128).max() < 40  # plain subsampling would keep 0 and 255
    np.testing.assert_array_equal(source.pixels(0, 1.0), stripes)


# Pairs of folders


def test_folders_are_paired_by_name(tmp_path: Path) -> None:
    for name in ("a_in.png", "sub/b-LQ.jpg", "c.png"):
        save(tmp_path / "distorted" / name)
    for name in ("a_gt.bmp", "sub/b_hr.png", "c.tif"):
        save(tmp_path / "target" / name)
    pairs = pair_folders(tmp_path / "distorted", tmp_path / "target")
    names = [tuple(path.relative_to(tmp_path).as_posix() for path in pair) for pair in pairs]
    assert names == [
        ("distorted/a_in.png", "target/a_gt.bmp"),
        ("distorted/c.png", "target/c.tif"),
        ("distorted/sub/b-LQ.jpg", "target/sub/b_hr.png"),
    ]
    assert len(opened_pairs(pairs)) == 3


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["distorted/a_in.png", "target/a_gt.png", "distorted/b_in.png"], r"distorted/b_in.png: no partner .*\(1 such"),
        (["distorted/a_in.png", "target/a_gt.png", "target/b_gt.png"], r"target/b_gt.png: no partner .*\(1 such"),
        (["distorted/a_in.png", "target/a_gt.png", "distorted/a.png"], "same name as"),
        (["target/a.png"], "distorted: no such folder"),
        (["distorted/notes/a.txt"], "distorted: the folder holds no image files"),
    ],
)
def test_files_that_cannot_be_paired(files: list[str], reason: str, tmp_path: Path) -> None:
    for name in files:
        if name.endswith(".png"):
            save(tmp_path / name)
        else:
            (tmp_path / name).parent.mkdir(parents=True)
    with pytest.raises(ImageError, match=reason):
        pair_folders(tmp_path / "distorted", tmp_path / "target")


def test_a_name_that_several_photographs_share_is_given_in_full() -> None:
    assert short_names(["a/x.png", "b/y.png", "b/x.jpg"]) == ["a/x.png", "y", "b/x.jpg"]
