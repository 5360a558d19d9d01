"""How a TIFF file stores its samples: what decides which library decodes it."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from restore_env.images.formats import jpeg_covers

_CHUNK = 2**16  # bytes of a Deflate stream that are unpacked at once


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
    """Whether strips or tiles cover the image, all their bytes are there, and their checksums hold, as far as decoders
    do not check that themselves."""

    UNSIGNED, FLOAT = 1, 3
    WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
    RAW, FAX, LZW, JPEG, DEFLATE, PACKBITS = 1, (2, 3, 4), 5, 7, (8, 32946), 32773
    ASSOCIATED, UNASSOCIATED = 1, 2
    MOST_PACKED: ClassVar[Mapping[int, float]] = MappingProxyType(
        {RAW: 1 / 8, LZW: 512, DEFLATE[0]: 129, DEFLATE[1]: 129, PACKBITS: 8, JPEG: 128}
    )
    """Bytes of samples that one bit of each compression can stand for; a fax needs a bit a row."""
    MOST_PACKED_ELSE = 4096
    """The same for any other compression."""

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
        compression, bits = tags.get(259, cls.RAW), frozenset(tags.get(258, (1,)))
        photometric, planar = tags.get(262, cls.BLACK_IS_ZERO), samples > 1 and tags.get(284, 1) == 2
        together = 1 if planar else samples  # samples of a pixel in a part
        if photometric == cls.YCBCR and compression == cls.RAW and not planar:
            across, down = tags.get(530, (2, 2))
            together = min(together, 1 + 2 / (across * down))
        parts, kinds = _parts(tags, width, height, samples if planar else 1)
        row = math.ceil(width * together * max(bits) / 8)
        needed = sum(count * math.ceil(across * together * max(bits) / 8) * down for count, (across, down) in kinds)
        at_most = row if compression in cls.FAX else cls.MOST_PACKED.get(compression, cls.MOST_PACKED_ELSE)
        stored = sum(min(stop, len(data)) - start for start, stop in parts if start < len(data))
        plausible = max(needed, row * height) <= at_most * 8 * min(stored, len(data))
        whole = len(parts) >= sum(count for count, _ in kinds) and all(stop <= len(data) for _, stop in parts)
        if plausible and whole:
            view, sides = memoryview(data), chain.from_iterable(repeat(side, count) for count, side in kinds)
            whole = all(
                cls._is_whole(compression, view[start:stop], side, math.ceil(side[0] * together * max(bits) / 8))
                for (start, stop), side in zip(parts, sides, strict=False)
            )
        return cls(
            width=width,
            height=height,
            bits=bits,
            formats=frozenset(tags.get(339, (cls.UNSIGNED,))),
            photometric=photometric,
            compression=compression,
            samples=samples,
            extra=tags.get(338, (0,))[0],
            planar=planar,
            plausible=plausible,
            whole=whole,
        )

    @classmethod
    def _is_whole(cls, compression: int, part: memoryview, side: tuple[int, int], row: int) -> bool:
        """Whether a strip or tile of ``side``, width and height, has all its bytes, as far as decoders do not check."""
        if compression == cls.RAW:
            return len(part) >= row * side[1]
        if compression in cls.DEFLATE:
            return _inflates(part, row * side[1])
        return compression != cls.JPEG or jpeg_covers(bytes(part), *side)

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
        """Whether OpenCV reads it correctly: 16-bit or float grey and RGB(A). Pillow reads those of 8 bits.

        OpenCV would read these, too, but ignores what is missing in a strip.
        """
        if self.planar or len(self.bits) != 1 or len(self.formats) != 1 or not self.deep:
            return False
        (bits,), (sample_format,) = self.bits, self.formats
        grey = self.samples == 1 and self.photometric in (self.WHITE_IS_ZERO, self.BLACK_IS_ZERO)
        of_known_kind = (bits, sample_format) in ((16, self.UNSIGNED), (32, self.FLOAT), (64, self.FLOAT))
        return of_known_kind and (grey or (self.samples in (3, 4) and self.photometric == self.RGB))

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


def _parts(
    tags: TiffImagePlugin.ImageFileDirectory_v2, width: int, height: int, planes: int
) -> tuple[list[tuple[int, int]], list[tuple[int, tuple[int, int]]]]:
    """First byte and end of each strip or tile that the file has; how many of which width and height it needs."""
    offsets, counts = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
    parts = [(offset, offset + count) for offset, count in zip(offsets, counts, strict=False)]
    if 273 in tags:
        rows = max(1, min(tags.get(278, height), height))
        full, rest = divmod(height, rows)
        kinds = [(full, (width, rows)), (int(rest > 0), (width, rest))]
    else:
        across, down = max(1, tags.get(322, 1)), max(1, tags.get(323, 1))
        kinds = [(-(-width // across) * -(-height // down), (across, down))]
    return parts, kinds * planes


def _inflates(part: memoryview, size: int) -> bool:
    """Whether a part of a TIFF is a complete zlib stream of ``size`` bytes or a little more."""
    stream, unpacked = zlib.decompressobj(), 0
    for first in range(0, len(part), _CHUNK):
        unpacked += len(stream.decompress(part[first : first + _CHUNK]))
        if stream.eof or unpacked > 2 * size + _CHUNK:
            break
    return stream.eof and unpacked >= size
