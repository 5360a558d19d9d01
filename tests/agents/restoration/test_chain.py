"""Chains of tools that are named, scale 2, and sheets of before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.restoration.before_after import side_by_side
from agents.restoration.restorer import Restorer
from restore_env.images.decoding import Photo
from restore_env.images.tiling import to_pixels, to_tensor, upscale_bicubic
from restore_env.toolbox import BICUBIC_X4
from tests.support.toolkit import Scripted, always, picture, pixelwise_toolbox, random_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


def never(_: Any) -> list[int]:
    raise AssertionError("the policy was asked")


def restorer(**options: Any) -> Restorer:
    """Of three tools and one of x4, with a policy that must not be asked."""
    return Restorer(pixelwise_toolbox(super_resolver=True), Scripted(never), **options)


# Chains --------------------------------------------------------------------------------------------------------------


def test_a_chain_is_applied_in_its_order_and_no_policy_is_asked() -> None:
    for chain in ((), ("invert",), ("dim", "invert"), ("invert", "dim", "dim", "invert", "invert")):
        result = restorer(max_steps=1).restore(picture(), tools=chain, keep_float=True)
        values = picture().astype(np.float64) / 255
        for name in chain:
            values = 1 - values if name == "invert" else values * 0.9
        assert result.toolchain == chain
        assert (result.votes, result.predicted_gain, result.taken_back) == ((), None, ())
        assert result.float_image is not None
        np.testing.assert_allclose(result.float_image, values, atol=1e-6)


def test_a_chain_may_upscale_where_it_stands() -> None:
    small = picture()
    result = restorer().restore(small, tools=["nearest_x4", "invert"], scale=4)
    assert result.toolchain == ("nearest_x4", "invert")
    np.testing.assert_array_equal(result.image, 255 - small.repeat(4, axis=0).repeat(4, axis=1))
    first = restorer().restore(small, tools=["bicubic_x4", "invert"], scale=4)
    np.testing.assert_array_equal(first.image, to_pixels(1 - upscale_bicubic(to_tensor(small), 4)))


def test_a_chain_that_does_not_upscale_is_followed_by_a_super_resolver() -> None:
    result = restorer().restore(picture(), tools=["invert"], scale=4)
    assert result.toolchain == ("invert", "nearest_x4")
    result = restorer(super_resolver="bicubic_x4").restore(picture(), tools=["invert"], scale=4)
    assert result.toolchain == ("invert", "bicubic_x4")
    assert restorer().restore(picture(), tools=["invert"], scale=3).toolchain == ("invert",)


def test_a_chain_for_all_images() -> None:
    fixed = Restorer(pixelwise_toolbox(), ("invert", "dim"))
    assert [fixed.restore(picture()).toolchain for _ in range(2)] == [("invert", "dim")] * 2
    assert fixed.restore(picture(), tools=["dim"]).toolchain == ("dim",)
    with pytest.raises(ValueError, match="no tool 'conjure'"):
        Restorer(pixelwise_toolbox(), ["conjure"])


def test_a_chain_of_a_grey_photo_stays_grey() -> None:
    tools = random_toolbox()
    result = Restorer(tools, Scripted(never)).restore(picture()[..., 0], tools=["denoise_2", "deblur_1"])
    np.testing.assert_array_equal(result.image[..., 0], result.image[..., 2])


@pytest.mark.parametrize(
    ("chain", "scale", "message"),
    [
        (
            ("conjure",),
            1,
            "no tool 'conjure': choose from brighten, dim, invert, nearest_x4, sft_gan, sed, light, bicubic_x4",
        ),
        (("nearest_x4",), 1, "nearest_x4 is a super-resolver: it needs a scale of 2 or 4"),
        (("sed",), 1, "sed is a super-resolver: it needs a scale of 2 or 4"),
        (("nearest_x4", "bicubic_x4"), 4, "the chain nearest_x4, bicubic_x4 upscales more than 4 times"),
        (("nearest_x4", "nearest_x4"), 2, "upscales more than 2 times"),
        (("nearest_x4",), 3, "upscales more than 3 times"),
    ],
)
def test_chains_that_do_not_work(chain: tuple[str, ...], scale: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        restorer().restore(picture(), tools=chain, scale=scale)


def test_a_chain_with_a_super_resolver_beside_another_one_is_refused() -> None:
    with pytest.raises(ValueError, match="the chain has a super-resolver: leave the other one out"):
        restorer(super_resolver="bicubic_x4").restore(picture(), tools=["nearest_x4"], scale=4)


# Scale 2 -------------------------------------------------------------------------------------------------------------


def test_scale_2_is_4_reduced_by_the_mean_of_each_area() -> None:
    result = restorer(scale=2).restore(picture(), tools=["bicubic_x4"])
    large = upscale_bicubic(to_tensor(picture()), 4)
    assert (result.scale, result.image.shape, result.toolchain) == (2, (32, 48, 3), ("bicubic_x4",))
    np.testing.assert_array_equal(result.image, to_pixels(torch.nn.functional.avg_pool2d(large, 2)))
    assert result.gmacs == pytest.approx(BICUBIC_X4.macs_per_pixel * 16 * 24 / 1e9)


def test_a_policy_may_choose_a_super_resolver_for_scale_2() -> None:
    policy = Scripted(always(3), always(2), always(3))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(), scale=2)
    assert result.toolchain == ("nearest_x4", "invert")
    np.testing.assert_array_equal(result.image, 255 - picture().repeat(2, axis=0).repeat(2, axis=1))
    assert [step["action_mask"][0, 3] for step in policy.seen] == [1, 0, 0]
    assert [len(step["image"]) for step in policy.seen] == [6, 24, 24]


def test_scale_2_may_be_as_large_as_the_result_may_be() -> None:
    wide = np.zeros((1, 40_000, 3), np.uint8)
    tall = restorer().restore(wide, tools=["nearest_x4"], scale=2)
    assert tall.image.shape == (2, 80_000, 3)


# Sheets --------------------------------------------------------------------------------------------------------------


def test_a_sheet_shows_both_at_the_results_size() -> None:
    before, after = picture(), picture(64, 96)
    sheet = side_by_side(Photo(before), Photo(after, icc_profile=b"profile"))
    assert sheet.icc_profile == b"profile"
    left, gap, right = np.split(sheet.pixels, [96, sheet.pixels.shape[1] - 96], axis=1)
    np.testing.assert_array_equal(left, to_pixels(upscale_bicubic(to_tensor(before), 4)))
    np.testing.assert_array_equal(right, after)
    assert gap.shape[1] == 2
    assert (gap == 255).all()
    same = side_by_side(Photo(before), Photo(255 - before)).pixels
    np.testing.assert_array_equal(same[:, :24], before)
