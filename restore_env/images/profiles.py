"""Colour profiles: in which space the numbers of a picture are.

Tools restore the numbers as they are, since that is where noise and compression have come in, but for a space whose
tones are far from those of sRGB, such as a linear one: there they get the tones of sRGB.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.images.arrays import BAND, Float, as_float, of_type
from restore_env.images.decoding import Photo

_SPACE, _SIGNATURE = slice(16, 20), slice(36, 40)
"""Bytes of a profile: the space that it describes, and the mark of a profile."""
_TO_XYZ_D50 = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
"""From linear sRGB, adapted to the white of profiles (Lindbloom)."""
_KNOTS = np.linspace(0.0, 1.0, 4097)
SAME_COLOURS, SAME_TONES = 2 / 255, 0.1
"""A space whose colours differ from sRGB's by less is sRGB, but for rounding. Tools keep the numbers of one whose tones
differ by less: gammas from 1.7 to 2.9."""
_LUT_TAGS = (b"A2B0", b"D2B0")
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
"""Number of parameters of each kind of parametric curve."""


@dataclass(frozen=True)
class ColourSpace:
    """An RGB space of three tone curves and three primaries, or a grey space."""

    curves: tuple[npt.NDArray[np.float64], ...]
    """Of red, green and blue: linear light at 4097 values from 0 to 1, increasing."""
    matrix: npt.NDArray[np.float64]
    """``(3, 3)``, from its linear light to that of sRGB."""

    def to_srgb(self, colours: Float) -> Float:
        """Values ``(..., 3)`` in [0, 1] as sRGB, which is below 0 and above 1 for colours that sRGB does not have."""
        return _encoded(self._linear(colours) @ self.matrix.T)

    def with_srgb_tones(self, colours: Float) -> Float:
        """Values ``(..., 3)`` in [0, 1] with the tone curve of sRGB, in [0, 1]."""
        return _encoded(self._linear(colours))

    def with_own_tones(self, colours: Float) -> Float:
        """The reverse of :meth:`with_srgb_tones`, clipped to [0, 1]."""
        linear = _decoded(colours)
        values = [np.interp(linear[..., i], curve, _KNOTS) for i, curve in enumerate(self.curves)]
        return np.stack(values, axis=-1).astype(np.float32)

    @cached_property
    def has_srgb_tones(self) -> bool:
        """Whether its tones are about those of sRGB."""
        return all(bool((np.abs(_encoded(curve) - _KNOTS) < SAME_TONES).all()) for curve in self.curves)

    def _linear(self, colours: Float) -> npt.NDArray[np.float64]:
        return np.stack([np.interp(colours[..., i], _KNOTS, curve) for i, curve in enumerate(self.curves)], axis=-1)


@lru_cache(maxsize=16)
def colour_space(profile: bytes | None) -> ColourSpace | None:
    """The space of an RGB or grey profile; None for sRGB, and for profiles of tables, other kinds and damaged ones."""
    try:
        if not profile or profile[_SIGNATURE] != b"acsp":
            return None
        tags = _tags(profile)
        if tags.keys() & {*_LUT_TAGS}:
            return None
        if profile[_SPACE] == b"GRAY":
            space = ColourSpace((_curve(tags[b"kTRC"]),) * 3, np.eye(3))
        else:
            primaries = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
            curves = tuple(_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
            matrix = np.linalg.inv(_TO_XYZ_D50) @ primaries
            white = matrix.sum(axis=1, keepdims=True)
            if (white <= 0).any():
                return None
            space = ColourSpace(curves, matrix / white)  # white becomes white
    except (KeyError, ValueError, IndexError, struct.error):
        return None
    steps = np.linspace(0, 1, 9, dtype=np.float32)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
    return None if np.abs(space.to_srgb(grid) - grid).max() < SAME_COLOURS else space


def in_srgb(photo: Photo) -> Photo:
    """The photo in sRGB, clipped, and without its profile; itself if its space is sRGB or not known."""
    space = colour_space(photo.icc_profile)
    if space is None:
        return photo
    pixels = _converted(photo.pixels, space)
    exact = photo.exact if photo.exact is None else _converted(photo.exact, space)
    return replace(photo, pixels=pixels, exact=exact, icc_profile=None)


def _converted(colours: npt.NDArray[Any], space: ColourSpace) -> npt.NDArray[Any]:
    result = np.empty_like(colours)
    for top in range(0, len(colours), BAND):
        result[top : top + BAND] = of_type(space.to_srgb(as_float(colours[top : top + BAND])), colours.dtype)
    return result


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    rows = [struct.unpack_from(">4sII", profile, 132 + 12 * row) for row in range(min(count, 1000))]
    return {name: profile[offset : offset + size] for name, offset, size in rows}


def _xyz(tag: bytes) -> npt.NDArray[np.float64]:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> npt.NDArray[np.float64]:
    """Linear light at the knots."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count > 1:
            table = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535
            curve = np.interp(_KNOTS, np.linspace(0, 1, count), table)
        else:
            curve = _KNOTS ** (struct.unpack_from(">H", tag, 12)[0] / 256 if count else 1)
    elif tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        curve = _parametric(kind, *(value / 65536 for value in struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)))
    else:
        raise ValueError("no tone curve")
    if not (np.isfinite(curve).all() and (np.diff(curve) >= 0).all() and curve[-1] > curve[0]):
        raise ValueError("a tone curve that cannot be inverted")
    return curve


def _parametric(
    kind: int, g: float, a: float = 1, b: float = 0, c: float = 0, d: float = 0, e: float = 0, f: float = 0
) -> npt.NDArray[np.float64]:
    """A parametric curve (ICC.1:2022, table 68); not finite where a damaged profile has no curve."""
    with np.errstate(all="ignore"):
        power = np.maximum(a * _KNOTS + b, 0) ** g
    if kind == 0:
        return power
    if kind in (1, 2):  # c is added everywhere, below the border there is nothing else
        return np.where(a * _KNOTS + b >= 0, power, 0) + c
    return np.where(d <= _KNOTS, power + e, c * _KNOTS + f)


def _encoded(linear: npt.NDArray[np.float64]) -> Float:
    """SRGB of linear light, mirrored below 0 (IEC 61966-2-1)."""
    size = np.abs(linear)
    curved = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(curved, linear).astype(np.float32)


def _decoded(colours: Float) -> npt.NDArray[np.float64]:
    size = np.abs(colours, dtype=np.float64)
    return np.copysign(np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4), colours)
