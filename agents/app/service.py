"""Restores the photographs that visitors of the page choose, one at a time and within limits."""

from __future__ import annotations

import copy
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agents.app.choices import Choices, command_for
from agents.restoration.files import TAG, written_suffix
from agents.restoration.restorer import Restoration, Restorer
from agents.restoration.tiled_episode import Progress
from restore_env.errors import ImageRestoreError
from restore_env.images.decoding import ImageError, decode_image
from restore_env.images.encoding import encode_image
from restore_env.images.files import write_atomically
from restore_env.images.sources import PhotoLike

MEGAPIXELS = 50.0
"""Largest result unless said otherwise."""
EXPLAINED = (ImageRestoreError, ValueError, OSError, RuntimeError, MemoryError)
"""Errors whose message says what is wrong."""


class Refused(Exception):  # noqa: N818
    """A photograph is not restored; the message says why, in plain words and one line."""


class Stopped(Refused):
    """The visitor ended the work, or left."""


@dataclass(frozen=True)
class Outcome:
    """A restored photograph as a file, and how it was made."""

    path: Path
    """The file; its bytes are those of ``imagerestore restore``."""
    result: Restoration
    """With its stages."""
    notes: tuple[str, ...]
    """What the visitor should know about reading and writing the file."""
    choices: Choices
    command: str
    """The command that writes the same file."""


class Service:
    """A restorer that is shared by all visitors.

    Args:
        restorer: agent, tools and device. Its caution and regions are replaced by the visitor's.
        megapixels: largest result, 10^6 pixels.
        options: of the command line that made the restorer what it is, by name, for the commands that are shown.
    """

    def __init__(
        self, restorer: Restorer, *, megapixels: float = MEGAPIXELS, options: Mapping[str, str] | None = None
    ) -> None:
        self.restorer, self.megapixels = restorer, megapixels
        self._options = options or {}
        self._lock = threading.Lock()

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools that a chain by hand is made of."""
        return tuple(tool.name for tool in self.restorer.toolbox if tool.scale == 1)

    def restore(
        self,
        source: Path,
        folder: Path,
        choices: Choices,
        target: PhotoLike | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        """Restore a file into a folder.

        Args:
            source: the photograph; its name is that of the result and of errors.
            folder: gets the result, in place of an earlier one.
            choices: how.
            target: ground truth, to measure PSNR.
            progress: called at intervals; what it raises ends the work.

        Raises:
            Refused: the file cannot be read, is too large, or cannot be restored or written so.
        """
        name = source.name
        with self._lock:
            try:
                return self._restore(source, folder, choices, target, progress)
            except FileNotFoundError:
                raise Refused(f"{name}: is no longer kept here, choose it again") from None
            except EXPLAINED as error:
                message = " ".join(str(error).split()) or type(error).__name__
                raise Refused(message if name in message else f"{name}: {message}") from None
            except Refused:
                raise
            except Exception as error:
                traceback.print_exc()
                raise Refused(f"{name}: something went wrong here ({type(error).__name__})") from None

    def _restore(
        self, source: Path, folder: Path, choices: Choices, target: PhotoLike | None, progress: Progress | None
    ) -> Outcome:
        photo = decode_image(source.read_bytes(), source.name, strict=False)
        height, width = photo.pixels.shape[:2]
        if height * width * choices.scale**2 > self.megapixels * 1e6:
            scaled = f" upscaled {choices.scale} times" if choices.scale > 1 else ""
            raise ImageError(
                f"{source.name}: {width}x{height}{scaled} is more than the {self.megapixels:g} megapixels allowed here"
            )
        restorer = copy.copy(self.restorer)  # shares tools and agent
        vars(restorer).update(choices.of_restorer())
        result = restorer.restore(
            photo,
            target,
            scale=choices.scale,
            progress=progress,
            keep_stages=True,
            strength=choices.strength,
            tools=choices.tools,
        )
        suffix = written_suffix(source, choices.file_format)
        path = folder / f"{source.stem}{TAG}{suffix}"
        data, lost = encode_image(result.photo, suffix, path.name)
        write_atomically(path, data)
        command = command_for(source.name, choices, self._options)
        return Outcome(path, result, (*photo.notes, *lost), choices, command)
