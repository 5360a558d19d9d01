"""Pictures of episodes: panels with captions."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore_env.extras import require_extra
from restore_env.images.arrays import Pixels
from restore_env.levels.store import PhotographsMissingError

if TYPE_CHECKING:
    from restore_env.episodes.batch import EpisodeBatch


BACKGROUND, INK = (250, 250, 250), (30, 30, 30)
GAP = 8
CAPTION_HEIGHT = 40
FONT_SIZE = 15


@dataclass(frozen=True)
class Panel:
    """An image with a caption of up to two lines; without an image, an empty frame."""

    image: Pixels | None
    caption: str


def panel_row(panels: Sequence[Panel], tile: int) -> Pixels:
    """Draw panels side by side, each fitted into ``tile`` x ``tile`` pixels: uint8 RGB, as wide as the panels need."""
    width = len(panels) * (tile + GAP) + GAP
    canvas = Image.new("RGB", (width, tile + CAPTION_HEIGHT + 2 * GAP), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(FONT_SIZE)
    for column, panel in enumerate(panels):
        left = GAP + column * (tile + GAP)
        if panel.image is None:
            draw.rectangle((left, GAP, left + tile - 1, GAP + tile - 1), outline=(210, 210, 210))
        else:
            canvas.paste(_fitted(panel.image, tile), (left, GAP))
        for row, line in enumerate(panel.caption.split("\n")[:2]):
            draw.text((left, GAP + tile + 3 + 18 * row), _shortened(line, font, tile), fill=INK, font=font)
    return np.asarray(canvas)


def stack_rows(rows: Sequence[Pixels]) -> Pixels:
    """Stack pictures vertically; narrower ones are padded on the right."""
    width = max(row.shape[1] for row in rows)
    padded = [np.full((row.shape[0], width, 3), BACKGROUND, np.uint8) for row in rows]
    for canvas, row in zip(padded, rows, strict=True):
        canvas[:, : row.shape[1]] = row
    return np.concatenate(padded)


def gain_caption(name: str, psnr: float, before: float | None = None) -> str:
    """A tool's name, the PSNR after it, and its gain if ``before`` is given."""
    gain = "" if before is None else f" ({psnr - before:+.2f})"
    return f"{name}\n{psnr:.2f} dB{gain}"


class EpisodeView:
    """The pictures of one episode of a batch: target, input, and the image after each step.

    Empty frames, if the episode's level set comes without its photographs. Create it at the start of an episode and
    call :meth:`update` after each step.
    """

    def __init__(self, episodes: EpisodeBatch, slot: int) -> None:
        self._episodes, self._slot = episodes, slot
        self.target: Pixels | None = None
        self.images: list[Pixels | None] = [None]
        with suppress(PhotographsMissingError):
            self.target, self.images = episodes.target_image(slot), [episodes.working_image(slot)]
        self._window: Any = None

    def of(self, episodes: EpisodeBatch) -> EpisodeView:
        """A copy for another batch in which the same slot continues the episode."""
        other = copy.copy(self)
        other._episodes, other.images, other._window = episodes, list(self.images), None
        return other

    def update(self) -> None:
        """Add the working image after a step."""
        self.images.append(None if self.target is None else self._episodes.working_image(self._slot))

    @property
    def captions(self) -> list[str]:
        """A caption for each of ``images``."""
        trace = self._episodes.psnr_trace[self._slot]
        names = ["input"] + [self._episodes.toolbox.name(a) for a in self._episodes.actions[self._slot]]
        befores = [None, *trace[:-1]]
        return [gain_caption(*row) for row in zip(names, trace, befores, strict=True)]

    @property
    def max_steps(self) -> int:
        """Maximal number of steps."""
        return self._episodes.task.max_steps

    def show(self, fps: float) -> None:
        """Draw the episode into a window and wait for one frame."""
        import matplotlib.pyplot as plt

        frame = render_episode(self)
        if self._window is None:
            plt.ion()
            self._window = plt.figure("ImageRestore", figsize=(frame.shape[1] / 100, frame.shape[0] / 100))
        self._window.clf()
        axes = self._window.add_axes((0, 0, 1, 1))
        axes.axis("off")
        axes.imshow(frame)
        plt.pause(1 / fps)

    def close(self) -> None:
        """Close the window, if one is open."""
        if self._window is not None:
            import matplotlib.pyplot as plt

            plt.close(self._window)
            self._window = None


def has_display() -> bool:
    """Whether a window can be opened."""
    return not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def check_display() -> None:
    """Raise ``ValueError`` if there is no display for a window, or no matplotlib to draw it."""
    if not has_display():
        raise ValueError('render_mode="human" needs a display; use render_mode="rgb_array" without one')
    require_extra("plots", 'render_mode="human"')


def render_episode(view: EpisodeView) -> Pixels:
    """Draw target, current image and the toolchain so far with its PSNR: uint8 RGB of a fixed size."""
    captions = view.captions
    large = panel_row([Panel(view.target, "target"), Panel(view.images[-1], "now: " + captions[-1])], tile=252)
    chain = [Panel(*pair) for pair in zip(view.images, captions, strict=True)]
    chain += [Panel(None, "")] * (view.max_steps + 1 - len(chain))
    rows = [panel_row(chain[first : first + 4], tile=126) for first in range(0, len(chain), 4)]
    return stack_rows([large, *rows])


def _fitted(image: Pixels, tile: int) -> Image.Image:
    """Scale an image into a tile, centred: up by a whole factor (nearest pixel), down by Lanczos."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    if max(height, width) <= tile:
        factor = tile // max(height, width)
        picture = picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    else:
        picture.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (tile, tile), BACKGROUND)
    canvas.paste(picture, ((tile - picture.width) // 2, (tile - picture.height) // 2))
    return canvas


def _shortened(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
