"""The gallery: a page with a picture of every example, whose numbers are those of the restoration."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from agents.app.examples import Example, Row
from agents.restoration.restorer import Restorer
from benchmarks import gallery
from restore_env.images.decoding import Photo, read_image
from restore_env.images.encoding import write_image
from tests.support.image_files import picture

pytestmark = pytest.mark.usefixtures("one_thread")


def small_examples(folder: Path) -> list[Example]:
    """A noisy photograph, a clean one, and one whose ground truth nobody knows."""
    clean = picture(80, 90)
    noisy = np.clip(clean.astype(int) + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    examples = []
    for name, pixels, truth in (("noisy_one", noisy, clean), ("clean", clean, clean), ("old", noisy, None)):
        path = folder / f"{name}.png"
        write_image(path, Photo(pixels))
        examples.append(Example(Row(path.name, name, f"Something that is {name}", None), path, truth))
    return examples


def test_the_page_has_every_picture_and_its_numbers(
    tmp_path: Path, model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gallery, "make_examples", small_examples)
    monkeypatch.setattr(gallery, "SHOWN", (60, 50))
    page = tmp_path / "docs" / "pictures.md"
    assert gallery.main(["--out", str(page), *model]) == 0
    text = page.read_text()
    assert "python -m benchmarks.gallery --out " in text
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert links == ["pictures/noisy_one.webp", "pictures/clean.webp", "pictures/old.webp"]
    for link in links:
        assert read_image(page.parent / link).pixels.shape == (60, 102, 3)
    noisy, *_ = small_examples(tmp_path)
    result = Restorer(model[1], model[3]).restore(noisy.path, noisy.clean)
    first, second, third = text.split("\n## ")[1:]
    assert first.startswith("Something that is noisy_one\n")
    assert f"**{' → '.join(result.toolchain)}**; PSNR {result.psnr_before:.2f} → {result.psnr_after:.2f} dB" in first
    assert re.search(r"PSNR \d+\.\d\d dB, of a clean photograph", second)
    assert "PSNR" not in third.split("The photographs are")[0]
    assert "3 photographs" in capsys.readouterr().out
