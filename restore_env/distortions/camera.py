"""The distortion of a small camera: slight blur, photon noise, read noise and JPEG, as albumentations transforms."""

from __future__ import annotations

from restore_env.distortions.transforms import ProtocolBlur, ProtocolJpeg, ProtocolNoise

# isort: split
from albumentations import Compose, OneOf, Sequential, ShotNoise

BLUR_SIGMA = (0.3, 1.5)
"""Pixels."""
PHOTON_NOISE = (0.0005, 0.03)
"""Scale of ``ShotNoise``, which acts in linear light."""
READ_NOISE = (0.0, 12.0)
"""Sigma, grey levels of 255."""
JPEG_QUALITY = (40, 98)
CLEAN_PROB, CLEAN_JPEG_QUALITY = 0.25, (75, 100)
"""Probability that an image is compressed only, and the quality then."""


def camera() -> Compose:
    """Distort as a small camera does; for a task's ``distortion``.

    Photon noise grows with brightness, read noise does not (Foi et al., TIP 2008). A quarter of the images are
    only compressed, and little.
    """
    noisy = Sequential(
        [
            ProtocolBlur(BLUR_SIGMA, p=0.3),
            ShotNoise(PHOTON_NOISE, p=1),
            ProtocolNoise(READ_NOISE),
            ProtocolJpeg(JPEG_QUALITY),
        ],
        p=1 - CLEAN_PROB,
    )
    return Compose([OneOf([noisy, ProtocolJpeg(CLEAN_JPEG_QUALITY, p=CLEAN_PROB)], p=1)])
