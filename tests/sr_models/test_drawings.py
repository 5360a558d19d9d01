"""Rendered text and line art."""

from __future__ import annotations

import numpy as np
import pytest

from restore_env.images.sources import ImageSource, open_images
from sr_models.training import drawings
from sr_models.training.blind_distortion import bicubic
from sr_models.training.crops import SrPairSampler
from sr_models.training.drawings import drawing
from tests.support.toolkit import photographs


@pytest.mark.parametrize("kind", drawings.KINDS)
def test_every_kind_has_ink_on_ground(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "KINDS", {kind: drawings.KINDS[kind]})
    pages = [drawing(96, np.random.default_rng(seed)) for seed in range(8)]
    assert all(page.shape == (96, 96, 3) and page.dtype == np.uint8 for page in pages)
    contrasts = [np.ptp(page.mean(2)) for page in pages]
    assert np.median(contrasts) > 80
    assert len({page.tobytes() for page in pages}) == len(pages)


def test_the_same_seed_draws_the_same() -> None:
    one, other = (drawing(64, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, other)


def test_there_is_no_empty_drawing() -> None:
    with pytest.raises(ValueError, match="1 pixel or more"):
        drawing(0, np.random.default_rng(0))


def sampler(share: float) -> SrPairSampler:
    source = open_images(photographs(2, 120, 140), min_size=32)
    assert isinstance(source, ImageSource)
    return SrPairSampler(source, [0, 1], 32, lambda image, _: bicubic(image), drawing_share=share)


def test_a_share_of_the_crops_is_drawn() -> None:
    few, many = (sampler(share).batch(np.random.default_rng(1), 64)[1] for share in (0.25, 1.0))
    photographed = sampler(0.0).batch(np.random.default_rng(1), 64)[1]

    def flat(targets: object) -> float:
        """The share of targets in which one colour fills much: drawings."""
        shares = [np.unique(one.reshape(-1, 3), axis=0, return_counts=True)[1].max() for one in np.asarray(targets)]
        return float(np.mean(np.array(shares) > 0.3 * 32 * 32))

    assert flat(photographed) == 0
    assert 0.1 < flat(few) < 0.4
    assert flat(many) > 0.6


def test_inputs_of_drawings_are_their_targets_at_a_quarter() -> None:
    inputs, targets = sampler(1.0).batch(np.random.default_rng(2), 8)
    small = np.stack([bicubic(np.ascontiguousarray(one)) for one in np.asarray(targets)])
    assert np.abs(small[:, 2:-2, 2:-2].astype(int) - np.asarray(inputs)[:, 2:-2, 2:-2]).mean() < 2
