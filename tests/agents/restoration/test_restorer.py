"""The Restorer: the images and arguments it takes, and what it does with a network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from agents.restoration.restorer import Restorer, quality
from restore_env import ImageRestoreEnv
from restore_env.images.decoding import Photo, read_image
from tests.support.toolkit import (
    Scripted,
    always,
    photographs,
    picture,
    pixelwise_toolbox,
    random_agent,
    random_toolbox,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# Images and arguments ------------------------------------------------------------------------------------------------


def test_photos_keep_profile_and_exif(tmp_path: Path) -> None:
    photo = Photo(picture(), icc_profile=b"profile", exif=b"Exif\0\0")
    result = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3))).restore(photo)
    assert (result.photo.icc_profile, result.photo.exif) == (b"profile", b"Exif\0\0")
    assert result.photo.pixels is result.image
    plain = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3))).restore(picture())
    plain.save(tmp_path / "result.png")
    np.testing.assert_array_equal(read_image(tmp_path / "result.png").pixels, 255 - picture())


def test_psnr_is_measured_on_eight_bits() -> None:
    clean = picture()
    distorted = np.clip(clean.astype(np.int16) + 9, 0, 255).astype(np.uint8)
    result = Restorer(pixelwise_toolbox(), Scripted(always(1), always(3))).restore(distorted, clean)
    assert result.psnr_before == quality(distorted, clean)
    assert result.psnr_after == quality(result.image, clean)
    upscaling = Restorer(pixelwise_toolbox(), Scripted(always(3)), scale=4, super_resolver="bicubic_x4")
    large = upscaling.restore(distorted, picture(64, 96))
    assert large.toolchain == ("bicubic_x4",)
    assert large.psnr_before == large.psnr_after


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("kind", ["one channel", "three equal channels"])
def test_grey_stays_grey(kind: str, scale: int) -> None:
    grey = picture()[..., 0]
    image = grey if kind == "one channel" else np.stack([grey] * 3, axis=2)
    toolbox = random_toolbox()
    restorer = Restorer(toolbox, Scripted(always(0), always(1), always(len(toolbox))), super_resolver="bicubic_x4")
    result = restorer.restore(image, scale=scale)
    assert len(result.toolchain) == 2 + (scale > 1)
    np.testing.assert_array_equal(result.image[..., 0], result.image[..., 1])
    np.testing.assert_array_equal(result.image[..., 0], result.image[..., 2])
    assert result.photo.grey == (kind == "one channel")
    coloured = Restorer(toolbox, Scripted(always(0), always(len(toolbox)))).restore(picture()).image
    assert (coloured[..., 0] != coloured[..., 1]).any()


def test_transparency_and_depth_are_kept() -> None:
    image = np.concatenate([picture(), np.full((16, 24, 1), 100, np.uint8)], axis=2).astype(np.uint16) * 257
    result = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3))).restore(image)
    assert (result.photo.exact is None, result.photo.alpha is None) == (False, False)
    np.testing.assert_array_equal(result.photo.exact, 65535 - image[..., :3])
    np.testing.assert_array_equal(result.photo.alpha, image[..., 3])


def test_strength_is_the_share_of_the_change() -> None:
    for strength in (0, 0.25, 1):
        restorer = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3)))
        result = restorer.restore(picture(), strength=strength)
        expected = picture() * (1 - strength) + (255.0 - picture()) * strength
        assert np.abs(result.image - expected).max() <= 0.5
        assert result.toolchain == ("invert",)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"strength must lie in \[0, 1\]"):
            restorer.restore(picture(), strength=strength)


def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    restorer = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3)))
    restorer.restore(picture(), progress=lambda what, share: told.append((what, share)))
    assert told == [("step 1: voting", 1), ("step 1: invert", 1), ("step 2: voting", 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 0}, "max_steps must be"),
        ({"max_steps": 1.5}, "max_steps must be"),
        ({"device": "meta"}, "device 'meta' cannot be used: "),
        ({"toolbox": "nowhere:at_all"}, "cannot be imported"),
    ],
)
def test_arguments_that_do_not_work(arguments: dict[str, Any], message: str) -> None:
    chosen: dict[str, Any] = {"toolbox": pixelwise_toolbox(), "policy": Scripted(always(3))} | arguments
    with pytest.raises(ValueError, match=message) as caught:
        Restorer(**chosen)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_scales_that_do_not_work(scale: Any) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(picture(), scale=scale)
    with pytest.raises(ValueError, match="scale must be"):
        Restorer(pixelwise_toolbox(), Scripted(always(3)), scale=scale)


def test_a_toolbox_by_its_import_string() -> None:
    restorer = Restorer("tests.support.toolkit:pixelwise_toolbox", Scripted(always(2), always(3)))
    assert restorer.restore(picture()).toolchain == ("invert",)


# With a network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observe", ["uint8", "float32"])
def test_on_one_patch_it_does_what_the_environment_does(observe: Literal["uint8", "float32"]) -> None:
    toolbox, (clean,) = random_toolbox(), photographs(1, 63, 63)
    distorted = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    chains = []
    for seed in range(4):
        agent = random_agent(toolbox.names, seed)
        agent.recipe = {"observe": observe}
        env = ImageRestoreEnv(images=[clean], toolbox=toolbox, dtype=observe)
        observation, info = env.reset(options={"distorted": distorted, "target": clean})
        state, over = None, False
        while not over:
            batch = {key: np.asarray(value)[None] for key, value in observation.items()}
            action, state = agent.predict(batch, state)
            observation, _, over, _, info = env.step(action[0])
        result = Restorer(toolbox, agent).restore(distorted, keep_float=True)
        assert tuple(vote.action for vote in result.votes) == env.describe()["tools"]
        assert result.gmacs == pytest.approx(info["gmacs"])
        assert result.float_image is not None
        if observe == "float32":  # memory layouts differ, and with them the order of summation
            np.testing.assert_allclose(result.float_image, observation["image"], rtol=0, atol=5e-6)
        chains.append(env.describe()["tools"])
    assert len(set(chains)) > 1


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    toolbox = random_toolbox()
    agent = random_agent(toolbox.names)
    (image,) = photographs(1, 160, 200)
    whole = Restorer(toolbox, agent).restore(image)
    monkeypatch.setattr("agents.restoration.tiled_episode.BATCH_SIZE", 5)
    batched = Restorer(toolbox, agent).restore(image)
    assert len(whole.votes) > 1
    for one, other in itertools.zip_longest(whole.votes, batched.votes):
        np.testing.assert_array_equal(one.grid, other.grid)
