"""How a TIFF file stores its samples: what decides which library decodes it."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin


@dataclass(frozen=True)
class TiffLayout:
    """How the samples of a TIFF's first image are stored."""

    width: int
    height: int
    bits: frozenset[int]
    formats: frozenset[int]
    photometric: int
    compression: int
    samples: int
    extra: int
    """The kind of the fourth sample."""
    planar: bool
    plausible: bool
    """Whether the file's bytes can hold as many pixels as it declares."""
    whole: bool
    """Whether all of the image's bytes are there and its checksums hold; OpenCV does not check that."""

    UNSIGNED, FLOAT = 1, 3
    WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
    FAX, LZW, JPEG, DEFLATE, PACKBITS = (2, 3, 4), 5, 7, (8, 32946), 32773
    ASSOCIATED, UNASSOCIATED = 1, 2
    MOST_PACKED: ClassVar[Mapping[int, float]] = MappingProxyType(
        {1: 1 / 8, LZW: 512, DEFLATE[0]: 129, DEFLATE[1]: 129, PACKBITS: 8, JPEG: 128}
    )
    """Bytes of samples that one bit of each compression can stand for; a fax needs a bit a row."""

    @classmethod
    def read(cls, data: bytes, page: int = 1) -> TiffLayout | None:
        """Read the tags of a page, from 1, of a TIFF file's bytes; None if there is no such page."""
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        for _ in range(page - 1):
            if not tags.next:
                return None
            file.seek(tags.next)
            tags.load(file)
        width, height, samples = tags.get(256, 0), tags.get(257, 0), tags.get(277, 1)
        offsets, counts = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
        parts = [(offset, offset + count) for offset, count in zip(offsets, counts, strict=False)]
        whole = all(stop <= len(data) for _, stop in parts)
        compression, bits = tags.get(259, 1), frozenset(tags.get(258, (1,)))
        row = width * samples * max(bits) / 8
        at_most = row if compression in cls.FAX else cls.MOST_PACKED.get(compression, math.inf)
        plausible = row * height <= at_most * 8 * len(data)
        if 273 in tags and height > tags.get(278, height) * len(parts):  # rows a strip
            whole = False
        if plausible and whole and compression in cls.DEFLATE:
            whole = all(_inflates(data[start:stop], width * height * samples) for start, stop in parts)
        return cls(
            width=width,
            height=height,
            bits=bits,
            formats=frozenset(tags.get(339, (cls.UNSIGNED,))),
            photometric=tags.get(262, cls.BLACK_IS_ZERO),
            compression=compression,
            samples=samples,
            extra=tags.get(338, (0,))[0],
            planar=samples > 1 and tags.get(284, 1) == 2,
            plausible=plausible,
            whole=whole,
        )

    def __str__(self) -> str:
        return (
            f"{'/'.join(map(str, sorted(self.bits)))} bits of format {'/'.join(map(str, sorted(self.formats)))},"
            f" {self.samples} sample(s){' in planes' * self.planar}, photometric {self.photometric},"
            f" compression {self.compression}"
        )

    @property
    def deep(self) -> bool:
        """Whether samples have more than 8 bits, which Pillow truncates or cannot convert."""
        return max(self.bits) > 8 or self.FLOAT in self.formats

    @property
    def opencv_reads_it(self) -> bool:
        """Whether OpenCV reads it correctly: 16-bit or float grey and RGB(A), and the usual compressed images.

        Pillow reads the latter as well, but its libtiff prints to stderr when they are damaged.
        """
        if self.planar or len(self.bits) != 1 or len(self.formats) != 1:
            return False
        (bits,), (sample_format,) = self.bits, self.formats
        grey = self.samples == 1 and self.photometric in (self.WHITE_IS_ZERO, self.BLACK_IS_ZERO)
        if self.deep:
            of_known_kind = (bits, sample_format) in ((16, self.UNSIGNED), (32, self.FLOAT), (64, self.FLOAT))
            return of_known_kind and (grey or (self.samples in (3, 4) and self.photometric == self.RGB))
        colour = self.samples == 3 and self.photometric in (self.RGB, self.YCBCR)
        kinds = {1: self.FAX, 8: (self.LZW, self.JPEG, *self.DEFLATE, self.PACKBITS)}
        return sample_format == self.UNSIGNED and (grey or colour) and self.compression in kinds.get(bits, ())

    def interpret(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert OpenCV's pixels to grey, RGB or RGBA with straight alpha."""
        if not self.deep:
            return pixels
        white = pixels.dtype.type(1) if self.FLOAT in self.formats else np.iinfo(pixels.dtype).max
        if self.photometric == self.WHITE_IS_ZERO:
            return white - pixels
        if pixels.shape[2] == 4 and self.extra != self.UNASSOCIATED:
            colour, alpha = pixels[..., :3], pixels[..., 3:]
            if self.extra != self.ASSOCIATED:
                return colour
            straight = np.minimum(colour / np.maximum(alpha, np.finfo(np.float32).tiny), 1) * white
            straight = straight if self.FLOAT in self.formats else np.rint(straight)
            return np.concatenate([straight.astype(pixels.dtype), alpha], axis=2)
        return pixels


def _inflates(strip: bytes, samples: int) -> bool:
    """Whether a part of a TIFF is a complete zlib stream; at most an image's size is unpacked."""
    stream = zlib.decompressobj()
    stream.decompress(strip, 8 * samples + 2**20)
    return stream.eof
