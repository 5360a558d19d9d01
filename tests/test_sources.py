from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from restore_env import sources
from restore_env.images import ImageError, Photo, as_rgb8, read_image
from restore_env.sources import (
    EMBEDDED,
    NAMED_SKIPPED,
    ImageSource,
    PairSource,
    PixelCache,
    embedded_paths,
    list_images,
    open_images,
    pair_factor,
    pair_folders,
)

Byte = npt.NDArray[np.uint8]


def picture(height: int, width: int, seed: int = 0) -> Byte:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, height: int = 20, width: int = 30, seed: int = 0) -> Byte:
    pixels = picture(height, width, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def opened(images: Any, **options: Any) -> ImageSource:
    source = open_images(images, **options)
    assert isinstance(source, ImageSource)
    return source


def opened_pairs(images: Any, **options: Any) -> PairSource:
    source = open_images(images, **options)
    assert isinstance(source, PairSource)
    return source


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, in that order."""
    paths: list[str] = []

    def counting(path: str | os.PathLike[str]) -> Photo:
        paths.append(str(path))
        return read_image(path)

    monkeypatch.setattr(sources, "read_image", counting)
    return paths


# Folders


def test_folder_is_searched_recursively_and_sorted(tmp_path: Path) -> None:
    expected = {
        str(tmp_path / name): save(tmp_path / name, seed=seed)
        for seed, name in enumerate(["b.png", "a/z.BMP", "a/deep/er/c.tiff"])
    }
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
    (tmp_path / "empty.png").touch()
    with pytest.warns(UserWarning, match="skipped") as caught:
        source = opened(tmp_path, min_size=10)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert caught[0].filename == __file__  # it points at the call
    assert message.startswith("3 image file(s) skipped: ")
    assert "small.png: 30x9 is smaller than a patch of 10 pixels" in message
    assert "text.jpg: " in message
    assert "empty.png: the file is empty" in message
    assert [Path(source.identity(i)).name for i in range(len(source))] == ["good.png"]
    assert len(source.skipped) == 3


def test_the_warning_stays_readable(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    for number in range(NAMED_SKIPPED + 7):
        (tmp_path / f"{number}.png").touch()
    with pytest.warns(UserWarning, match=rf"{NAMED_SKIPPED + 7} image .*; and 7 more\Z") as caught:
        open_images(tmp_path)
    assert str(caught[0].message).count("the file is empty") == NAMED_SKIPPED


def test_folders_without_a_usable_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"the folder holds no image files \(png, jpg"):
        open_images(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"none of its 1 image file\(s\) can be used: .*empty.png: the file is empty"):
        open_images(tmp_path)


def test_list_images_wants_files(tmp_path: Path) -> None:
    save(tmp_path / "x" / "a.PNG")
    (tmp_path / "folder.jpg").mkdir()
    assert list_images(tmp_path) == [tmp_path / "x" / "a.PNG"]


# Files, lists and arrays


def test_one_file(tmp_path: Path) -> None:
    expected = save(tmp_path / "a.png")
    source = opened(str(tmp_path / "a.png"))
    assert len(source) == 1
    np.testing.assert_array_equal(source.pixels(0), expected)


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


def test_an_error_does_not_wait_for_the_images_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def slow(path: str | os.PathLike[str]) -> Photo:
        calls.append(str(path))
        if Path(path).name == "0.png":
            raise ImageError("the first one is bad")
        time.sleep(0.02)
        return Photo(picture(8, 8))

    paths = [tmp_path / f"{number}.png" for number in range(100)]
    for path in paths:
        path.touch()
    monkeypatch.setattr(sources, "read_image", slow)
    with pytest.raises(ImageError, match="the first one is bad"):
        open_images(paths)
    assert len(calls) < 50


def test_arrays_of_every_kind() -> None:
    rgb = picture(20, 30)
    grey = rgb[..., 0].copy()
    arrays = [rgb, rgb / 255, (rgb / 255).astype(np.float32), rgb.astype(np.uint16) * 257, grey]
    source = opened(arrays)
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(source.pixels(i), as_rgb8(array))
        np.testing.assert_array_equal(source.pixels(i), rgb if array.ndim == 3 else np.dstack([grey] * 3))
        assert source.identity(i).startswith(f"array-{i}-")


def test_arrays_of_the_same_bytes_and_other_shapes_are_told_apart() -> None:
    source = opened([np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8), np.zeros((2, 12, 3), np.uint8)])
    assert [source.pixels(i).shape[:2] for i in range(3)] == [(4, 6), (6, 4), (2, 12)]


def test_paths_and_arrays_mix(tmp_path: Path) -> None:
    pixels = save(tmp_path / "a.png")
    source = opened([tmp_path / "a.png", pixels])
    np.testing.assert_array_equal(source.pixels(0), source.pixels(1))


def test_pixels_are_read_only() -> None:
    source = opened([picture(8, 8)])
    with pytest.raises(ValueError, match="read-only"):
        source.pixels(0)[0, 0] = 0


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
    assert [Path(source.identity(i)).name for i in range(len(source))] == list(EMBEDDED)


# Pairs


def test_pairs_of_one_size_and_of_low_resolution(tmp_path: Path) -> None:
    large = save(tmp_path / "target.png", 40, 80)
    source = opened_pairs([(picture(10, 20), large), (picture(40, 80), tmp_path / "target.png")])
    assert len(source) == 2
    assert [source.factor(i) for i in range(2)] == [4, 1]
    np.testing.assert_array_equal(source.degraded.pixels(0), picture(10, 20))
    np.testing.assert_array_equal(source.target.pixels(1), large)
    assert source.identity(0) == source.degraded.identity(0)


@pytest.mark.parametrize("target", [(41, 80), (40, 79), (9, 20), (20, 10), (10, 40)])
def test_pairs_that_do_not_fit(target: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"degraded 20x10 and target {target[1]}x{target[0]} do not fit together"):
        open_images([(picture(10, 20), picture(*target))])
    with pytest.raises(ImageError, match="the pair: degraded"):
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


def test_no_size_falls_to_nothing() -> None:
    source = opened([picture(1, 7)])
    assert source.size(0, 1 / 3) == (1, 2)
    assert source.pixels(0, 1 / 3).shape == (1, 2, 3)


# The cache


def test_images_are_decoded_once(tmp_path: Path, decoded: list[str]) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", seed=number)
    source = opened(tmp_path)
    assert len(decoded) == 3
    for _ in range(2):
        for i in range(3):
            for scale in (1.0, 2 / 3, 1 / 3):
                source.pixels(i, scale)
    assert len(decoded) == 3


def test_cache_dir_serves_the_next_source(tmp_path: Path, decoded: list[str]) -> None:
    photos, cache_dir = tmp_path / "photos", tmp_path / "cache" / "below"
    for number in range(3):
        save(photos / f"{number}.png", seed=number)
    first = opened(photos, cache_dir=cache_dir)
    assert len(decoded) == 3
    second = opened(photos, cache_dir=cache_dir)
    assert len(decoded) == 3
    for i in range(3):
        np.testing.assert_array_equal(first.pixels(i, 2 / 3), second.pixels(i, 2 / 3))
        assert first.identity(i) == second.identity(i)
    del first, second
    gc.collect()
    assert cache_dir.is_dir()


def test_a_changed_file_is_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    path = tmp_path / "a.png"
    save(path)
    opened(path, cache_dir=tmp_path / "cache")
    changed = save(path, seed=1)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(opened(path, cache_dir=tmp_path / "cache").pixels(0), changed)
    assert len(decoded) == 2


def test_small_images_are_refused_from_the_cache_too(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    opened(tmp_path / "a.png", cache_dir=tmp_path / "cache")
    with pytest.raises(ImageError, match="30x20 is smaller than a patch of 63"):
        open_images(tmp_path / "a.png", cache_dir=tmp_path / "cache", min_size=63)


def test_a_cache_dir_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="file: cannot keep decoded images there"):
        open_images([picture(8, 8)], cache_dir=tmp_path / "file")


def test_a_full_disk_is_told_and_not_taken_for_a_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    save(tmp_path / "photos" / "a.png")
    monkeypatch.setattr(np, "save", refuse)
    with pytest.raises(ImageError, match=r"cache: cannot keep decoded images there \(No space left on device\)"):
        open_images(tmp_path / "photos", cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_mapped_bytes_are_bounded(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path, mapped_bytes=3 * 8 * 8 * 3)
    images = [picture(8, 8, seed) for seed in range(10)]
    for number, image in enumerate(images):
        cache.put(str(number), image)
    mapped = []
    for number, image in enumerate(images):
        pixels = cache.get(str(number))
        np.testing.assert_array_equal(pixels, image)
        mapped.append(weakref.ref(pixels))
        del pixels
        assert sum(reference() is not None for reference in mapped) <= 3
    assert mapped[-1]() is cache.get("9")  # the latest are kept
    assert mapped[-3]() is cache.get("7")


def test_an_image_beyond_the_bound_is_served_all_the_same(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path, mapped_bytes=10)
    cache.put("a", picture(8, 8))
    np.testing.assert_array_equal(cache.get("a"), picture(8, 8))
    assert "a" in cache
    assert "b" not in cache


def test_a_source_may_be_used_from_several_threads(tmp_path: Path) -> None:
    images = [picture(30, 30, seed) for seed in range(12)]
    source = ImageSource(images, PixelCache(tmp_path, mapped_bytes=5000), min_size=1, lenient=False)

    def look(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            i = int(rng.integers(12))
            np.testing.assert_array_equal(source.pixels(i), images[i])
            source.pixels(i, float(rng.choice([2 / 3, 1 / 3])))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))


def test_few_decoded_images_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: the first one is slow, so that all others could pile up behind it."""
    alive, most, lock = 0, 0, threading.Lock()

    def released() -> None:
        nonlocal alive
        alive -= 1

    def slow_first(path: str | os.PathLike[str]) -> Photo:
        nonlocal alive, most
        if Path(path).name == "00.png":
            time.sleep(0.3)
        pixels = picture(8, 8)
        weakref.finalize(pixels, released)
        with lock:
            alive += 1
            most = max(most, alive)
        return Photo(pixels)

    for number in range(40):
        (tmp_path / f"{number:02}.png").touch()
    monkeypatch.setattr(sources, "read_image", slow_first)
    assert len(opened(tmp_path)) == 40
    assert most <= 5


def test_the_temporary_folder_goes_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = opened([picture(8, 8)])
    source.pixels(0, 1 / 3)
    assert len(list(tmp_path.iterdir())) == 1
    del source
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["", "1 / 0"], ids=["normal", "error"])
def test_the_temporary_folder_goes_with_the_process(ending: str, tmp_path: Path) -> None:
    script = (
        f"import numpy as np; from restore_env.sources import open_images\nsource = open_images([np.eye(9)])\n{ending}"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_delete_its_parents_images(tmp_path: Path) -> None:
    script = """
import gc, os
import numpy as np
from restore_env.sources import open_images
source = open_images([np.eye(9)])
child = os.fork()
if child == 0:
    del source
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
print(source.pixels(0, 1 / 3).shape)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "(3, 3, 3)\n"


MEMORY_SCRIPT = """
import os, sys
from pathlib import Path
from restore_env.sources import ImageSource, PixelCache

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

folder = Path(sys.argv[1])
for bound in sys.argv[2:]:
    cache = PixelCache(folder / "cache", mapped_bytes=int(bound) * 2**20)
    source = ImageSource(sorted(folder.glob("*.bmp")), cache, min_size=1, lenient=False)
    before = most = resident()
    for i in range(len(source)):
        source.pixels(i).sum()  # touches every page
        most = max(most, resident())
    print(most - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
def test_memory_is_bounded_however_many_photographs_there_are(tmp_path: Path) -> None:
    """24 photographs of 1.5 megapixels are 108 MiB; with a bound of 16 MiB they take that and a little more."""
    for number in range(24):
        Image.new("RGB", (1500, 1048), (number, 0, 0)).save(tmp_path / f"{number}.bmp")
    command = [sys.executable, "-c", MEMORY_SCRIPT, str(tmp_path), "16", "1024"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    bounded, unbounded = (float(line) for line in result.stdout.split())
    assert bounded < 40
    assert unbounded > 90  # so the measurement would show it


# Pairs of folders


def test_folders_are_paired_by_name(tmp_path: Path) -> None:
    for name in ("a_in.png", "sub/b-LQ.jpg", "c.png"):
        save(tmp_path / "degraded" / name)
    for name in ("a_gt.bmp", "sub/b_hr.png", "c.tif"):
        save(tmp_path / "target" / name)
    pairs = pair_folders(tmp_path / "degraded", tmp_path / "target")
    names = [tuple(path.relative_to(tmp_path).as_posix() for path in pair) for pair in pairs]
    assert names == [
        ("degraded/a_in.png", "target/a_gt.bmp"),
        ("degraded/c.png", "target/c.tif"),
        ("degraded/sub/b-LQ.jpg", "target/sub/b_hr.png"),
    ]
    assert len(opened_pairs(pairs)) == 3


@pytest.mark.parametrize("lonely", ["degraded/b_in.png", "target/b_gt.png"])
def test_a_file_without_a_partner_is_an_error(lonely: str, tmp_path: Path) -> None:
    for name in ("degraded/a_in.png", "target/a_gt.png", lonely):
        save(tmp_path / name)
    with pytest.raises(ImageError, match=rf"{lonely}: no partner of that name in the other folder \(1 such"):
        pair_folders(tmp_path / "degraded", tmp_path / "target")


def test_two_files_of_one_name_are_an_error(tmp_path: Path) -> None:
    for name in ("degraded/a_in.png", "degraded/a.png", "target/a.png"):
        save(tmp_path / name)
    with pytest.raises(ImageError, match="same name as"):
        pair_folders(tmp_path / "degraded", tmp_path / "target")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="degraded: no such folder"):
        pair_folders(tmp_path / "degraded", tmp_path)
    (tmp_path / "degraded").mkdir()
    with pytest.raises(ImageError, match="degraded: the folder holds no image files"):
        pair_folders(tmp_path / "degraded", tmp_path)


def test_embedded_photographs_have_the_same_identity_everywhere() -> None:
    source = open_images()
    assert {source.identity(i) for i in range(len(source))} >= {"scikit-image/coffee.png", "scikit-image/rocket.jpg"}
