"""What a visitor of the page chooses, and the command that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.restoration import CAUTION

SCALES = (1, 2, 4)


@dataclass(frozen=True)
class Choices:
    """How a photograph is restored; the defaults are those of ``imagerestore restore``."""

    strength: float = 1.0
    """The share of the change that is applied."""
    caution: float = CAUTION
    """dB: smallest predicted gain for which the agent applies a tool."""
    scale: int = 1
    """Upscale factor, one of :data:`SCALES`."""
    tools: tuple[str, ...] | None = None
    """The chain by hand, names of tools in order; None: the agent chooses."""
    file_format: str = "png"
    """One of :data:`agents.restoration.files.FORMATS`."""
    regions: bool = False
    """Whether every region gets a chain of its own."""

    def of_restorer(self) -> dict[str, Any]:
        """The attributes of a Restorer that are chosen."""
        return {"caution": self.caution, "regions": self.regions and self.tools is None}


def command_for(name: str, choices: Choices, options: Mapping[str, str] | None = None) -> str:
    """The command that writes the same file.

    Args:
        name: of the photograph's file.
        choices: of the page.
        options: further options, such as ``{"--backend": "ncnn"}``.
    """
    given = {
        "--strength": (f"{choices.strength:g}", "1"),
        "--caution": (f"{choices.caution:g}", f"{CAUTION:g}"),
        "--scale": (str(choices.scale), "1"),
        "--format": (choices.file_format, "png"),
    }
    words = [word for option, (value, default) in given.items() if value != default for word in (option, value)]
    words += ["--tools", ",".join(choices.tools)] if choices.tools else []
    words += ["--regions"] if choices.regions and not choices.tools else []
    without = {"--policy"} if choices.tools else set()
    without |= {"--super-resolver"} if choices.scale == 1 else set()
    words += [word for option, value in (options or {}).items() if option not in without for word in (option, value)]
    return shlex.join(["imagerestore", "restore", f"./{name}" if name.startswith("-") else name, *words])
