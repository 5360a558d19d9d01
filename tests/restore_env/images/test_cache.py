"""The cache of decoded images: each decoded once, in bounded memory, in a folder that is deleted in time."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from restore_env.images import cache, sources
from restore_env.images.cache import PixelCache
from restore_env.images.decoding import ImageError, Photo, read_image
from restore_env.images.sources import open_images
from tests.support.pictures import opened, picture, save


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, in that order."""
    paths: list[str] = []

    def counting(path: str | os.PathLike[str]) -> Photo:
        paths.append(str(path))
        return read_image(path)

    monkeypatch.setattr(sources, "read_image", counting)
    return paths


def test_images_are_decoded_once_and_cache_dir_serves_the_next_source(tmp_path: Path, decoded: list[str]) -> None:
    photos, cache_dir = tmp_path / "photos", tmp_path / "cache" / "below"
    for number in range(3):
        save(photos / f"{number}.png", seed=number)
    first = opened(photos, cache_dir=cache_dir)
    for i, scale in itertools.product(range(3), (1.0, 2 / 3, 1 / 3)):
        first.pixels(i, scale)
    assert len(decoded) == 3
    second = opened(photos, cache_dir=cache_dir)
    assert len(decoded) == 3
    for i in range(3):
        np.testing.assert_array_equal(first.pixels(i, 2 / 3), second.pixels(i, 2 / 3))
        assert first.identity(i) == second.identity(i)
    del first, second
    gc.collect()
    assert cache_dir.is_dir()


def test_a_changed_file_is_decoded_again_and_a_small_one_refused(tmp_path: Path, decoded: list[str]) -> None:
    path = tmp_path / "a.png"
    save(path)
    opened(path, cache_dir=tmp_path / "cache")
    changed = save(path, seed=1)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(opened(path, cache_dir=tmp_path / "cache").pixels(0), changed)
    assert len(decoded) == 2
    with pytest.raises(ImageError, match="30x20 is smaller than a patch of 63"):
        open_images(path, cache_dir=tmp_path / "cache", min_size=63)


def test_a_cache_dir_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="file: cannot keep decoded images there"):
        open_images([picture(8, 8)], cache_dir=tmp_path / "file")


def test_a_full_disk_is_not_reported_as_a_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    save(tmp_path / "photos" / "a.png")
    monkeypatch.setattr(np, "save", refuse)
    with pytest.raises(ImageError, match=r"cache: cannot keep decoded images there \(No space left on device\)"):
        open_images(tmp_path / "photos", cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_bounded_number_of_images_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAPPED_IMAGES", 3)
    images = [picture(8, 8, seed) for seed in range(10)]
    pixels = PixelCache(tmp_path)
    mapped = []
    for number, image in enumerate(images):
        pixels.put(str(number), image)
        np.testing.assert_array_equal(pixels.get(str(number)), image)
        mapped.append(weakref.ref(pixels.get(str(number))))
        assert sum(reference() is not None for reference in mapped) <= 3
    assert mapped[-1]() is pixels.get("9")  # the latest are kept
    assert "9" in pixels
    assert "10" not in pixels


def test_a_source_may_be_used_from_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAPPED_IMAGES", 2)
    images = [picture(30, 30, seed) for seed in range(12)]
    source = opened(images, cache_dir=tmp_path)

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            i = int(rng.integers(12))
            np.testing.assert_array_equal(source.pixels(i), images[i])
            source.pixels(i, float(rng.choice([2 / 3, 1 / 3])))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def test_the_temporary_folder_is_deleted_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cache, "_SHARED", weakref.WeakValueDictionary())  # other tests' images may still be open
    source = opened([picture(8, 8)])
    source.pixels(0, 1 / 3)
    assert len(list(tmp_path.iterdir())) == 1
    del source
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def run_with_images(tmp_path: Path, script: str) -> str:
    """Run a script in a new process, which has a source of one array, and return what it prints."""
    imports = "import gc, os, numpy as np; from restore_env.images.sources import open_images"
    script = f"{imports}\nsource = open_images([np.eye(9)])\n{script}"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert list(tmp_path.iterdir()) == []
    return process.stdout


def test_the_temporary_folder_is_deleted_with_a_process_that_fails(tmp_path: Path) -> None:
    assert run_with_images(tmp_path, "print(9); 1 / 0") == "9\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_delete_its_parents_images(tmp_path: Path) -> None:
    script = """
child = os.fork()
if child == 0:
    del source
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
print(source.pixels(0, 1 / 3).shape)
"""
    assert run_with_images(tmp_path, script) == "(3, 3, 3)\n"
