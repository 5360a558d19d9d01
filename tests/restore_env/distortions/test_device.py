from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv
from restore_env.distortions.crop import Crop
from restore_env.distortions.device import distort_crops, gaussian_field
from restore_env.distortions.protocol import SEVERITIES, Levels
from restore_env.images.sources import open_images
from restore_env.sampling import StartSampler
from tests.support.toolkit import photographs, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 40
CORNERS_AND_PHASES = [(0, 0), (0, -1), (-1, 0), (-1, -1), (1, 2), (17, 5), (18, 13), (30, 30)]


def by_both(levels: Levels, factor: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The same patches from the device's and the host's implementation, as int64."""
    image = np.random.default_rng(0).integers(0, 256, (280, 300, 3)).astype(np.uint8) // 4 + photographs(1)[0] // 2
    room = [side // factor - SIZE + 1 for side in image.shape[:2]]
    crops = [Crop(image, "", 1.0, factor, SIZE, top % room[0], left % room[1]) for top, left in CORNERS_AND_PHASES]
    ours = distort_crops(crops, [levels] * len(crops), range(len(crops)), "cpu").numpy()
    theirs = [crop.distorted(levels, np.random.default_rng(0)) for crop in crops]
    return ours.astype(np.int64), np.stack(theirs).astype(np.int64)


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.2, 5.0])
def test_blur_and_shrinking_are_the_hosts_to_rounding(sigma: float, factor: int) -> None:
    ours, theirs = by_both(Levels(blur_sigma=sigma), factor)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.001


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("quality", [10, 30, 49, 50, 80, 100])
def test_jpeg_is_libjpegs_to_a_grey_level_at_any_phase(quality: int, factor: int) -> None:
    ours, theirs = by_both(Levels(jpeg_quality=quality), factor)
    off = np.abs(ours - theirs).mean(axis=(1, 2, 3))
    assert off.max() < 0.5  # of a grey level, in every patch
    untouched, _ = by_both(Levels(), factor)
    assert quality == 100 or np.abs(theirs - untouched).mean() > 10 * off.max()


def test_the_noise_is_white_gaussian_and_belongs_to_its_seed() -> None:
    values = gaussian_field(torch.arange(8), 50_001)
    assert values.shape == (8, 50_001)
    torch.testing.assert_close(values.mean(1), torch.zeros(8), atol=0.02, rtol=0)
    torch.testing.assert_close(values.std(1), torch.ones(8), atol=0.02, rtol=0)
    assert 2.9 < (values**4).mean() < 3.1
    assert (torch.corrcoef(values) - torch.eye(8)).abs().max() < 0.03
    neighbours = (values[:, 1:] * values[:, :-1]).mean(1)
    assert neighbours.abs().max() < 0.03
    assert torch.equal(gaussian_field(torch.tensor([5]), 50_001)[0], values[5])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_inputs_have_the_hosts_psnr(severity: str) -> None:
    errors: list[list[float]] = []
    for device in (None, torch.device("cpu")):
        sampler = StartSampler(open_images(photographs()), severity, patch_size=SIZE, device=device)
        starts = list(sampler.starts(range(200)))
        pairs = [(np.asarray(start.distorted, dtype=float), start.target) for start in starts]
        errors.append([10 * np.log10(255**2 / np.mean((given - target) ** 2)) for given, target in pairs])
    gaps = np.array(errors[0]) - np.array(errors[1])
    assert abs(gaps.mean()) < 0.07  # dB: more than three standard errors, as the gaps' deviation is about 0.3
    assert 0 < gaps.std() < 0.5  # other noise, the same strength


def test_a_seed_gives_the_hosts_place_and_levels_alone_or_in_a_batch() -> None:
    source = open_images(photographs())
    host = StartSampler(source, patch_size=SIZE, factors=(1, 4))
    device = StartSampler(source, patch_size=SIZE, factors=(1, 4), device=torch.device("cpu"))
    for ours, theirs in zip(device.starts(range(12)), host.starts(range(12)), strict=True):
        assert (ours.factor, ours.image, ours.seed) == (theirs.factor, theirs.image, theirs.seed)
        assert ours.distortion == theirs.distortion
        np.testing.assert_array_equal(ours.target, theirs.target)
        alone = np.asarray(device.draw(ours.seed).distorted, dtype=int)
        assert alone.shape == theirs.distorted.shape
        # products of another batch may round otherwise
        assert (alone != np.asarray(ours.distorted, dtype=int)).mean() < 0.01


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_environments_run_with_draws_on_the_device(mode: str) -> None:
    arguments: dict[str, Any] = {"images": photographs(), "patch_size": SIZE, "draws": "device"}
    arguments["toolbox"] = pixelwise_toolbox(super_resolver=True)
    env = ImageRestoreVectorEnv(5, autoreset_mode=mode, **arguments)
    actions = np.random.default_rng(0).integers(0, 5, (8, 5))

    def play() -> list[Any]:
        return [env.reset(seed=3)[1]["psnr"], *(env.step(row)[4]["psnr"] for row in actions)]

    first = play()
    np.testing.assert_array_equal(first, play())
    assert isinstance(env.episodes.start(0).distorted, torch.Tensor)  # no copy on the host
    single = ImageRestoreEnv(**arguments)
    _, info = single.reset(seed=3)
    np.testing.assert_allclose(info["psnr"], first[0][0], atol=0.01)
    single.step(np.int64(1))
    assert single.record().validate(single).okay


def test_wrong_draws_get_one_clear_error() -> None:
    arguments: dict[str, Any] = {"images": photographs(), "toolbox": pixelwise_toolbox()}
    with pytest.raises(ValueError, match="host, device"):
        ImageRestoreEnv(draws="gpu", **arguments)
    with pytest.raises(ValueError, match="draws='device'"):
        ImageRestoreEnv(draws="device", distortion="tests.support.toolkit:inverted", **arguments)
