"""The compact observation's numbers."""

import numpy as np
import torch

from restore_env.distortions.protocol import jpeg
from restore_env.episodes.spectrum import (
    COMPACT_SIZE,
    HIGHEST,
    LOWEST,
    blocking,
    compact_codes,
    decoded,
    transposed_places,
)
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import read_image
from restore_env.images.sources import embedded_paths

PHOTO = read_image(embedded_paths()[0]).pixels


def batch(*images: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def test_blocking_finds_jpeg_wherever_its_blocks_lie() -> None:
    saved = jpeg(PHOTO, 15)
    places = [(top, left) for top in (101, 104) for left in (200, 203, 207)]
    crops = [[image[y : y + 63, x : x + 63] for y, x in places] for image in (PHOTO, saved)]
    clean, blocky = (blocking(batch(*each)) for each in crops)
    assert clean.shape == (6, 8)
    first, second = blocky[:, (0, 2)], blocky[:, (1, 3)]
    assert (first > clean[:, (0, 2)] + 0.15).all()
    assert (first > second + 0.1).all()


def test_the_observation_of_a_transposed_patch() -> None:
    """Columns become rows in every number."""
    patches = torch.from_numpy(jpeg(PHOTO[:80, :90], 20)[None]).permute(0, 3, 1, 2)
    codes, transposed = compact_codes(patches).astype(int), compact_codes(patches.transpose(2, 3)).astype(int)
    assert np.abs(transposed - codes[:, transposed_places()]).max() <= 1
    changed = np.abs(transposed - codes) > 1
    assert all(changed[0, part].any() for part in (slice(64), slice(64, 128), slice(128, 192), slice(-8, None)))


def test_the_smallest_and_plain_images_have_finite_numbers() -> None:
    for size in (8, 9, 17, 63):
        for image in (np.zeros((size, size, 3), np.uint8), PHOTO[:size, :size]):
            codes = compact_codes(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
            numbers = decoded(codes)
            assert numbers.shape == (1, COMPACT_SIZE)
            assert np.isfinite(numbers).all()
            assert (numbers >= LOWEST).all()
            assert (numbers <= HIGHEST).all()
