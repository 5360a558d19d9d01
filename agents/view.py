"""How a policy looks at images: what whole-image restoration and benchmarks must know of it, and its file says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class View:
    """What a policy sees. The policies of this project see the default."""

    observe: Literal["uint8", "float32"] = "uint8"
    """The environment's ``dtype``: "uint8", clipped and rounded; or "float32", the working image as it is."""
    borders: bool = True
    """Of whole images: a last row and column of tiles, flush with the border, votes on what full tiles leave over."""

    def __post_init__(self) -> None:
        if self.observe not in ("uint8", "float32"):
            raise ValueError(f"observe must be 'uint8' or 'float32', got {self.observe!r}")
        if not isinstance(self.borders, bool):
            raise ValueError(f"borders must be true or false, got {self.borders!r}")

    @classmethod
    def of(cls, policy: object) -> View:
        """What the policy's recipe says under the names of the fields; the default where it says nothing.

        Raises:
            ValueError: a value that is none.
        """
        recipe: dict[str, Any] = getattr(policy, "recipe", None) or {}
        return cls(**{name: recipe[name] for name in cls.__dataclass_fields__ if name in recipe})


PUBLISHED = View(observe="float32", borders=False)
"""How the published RL-Restore agent looks, by its authors' code: unclipped images, full tiles from the top left."""
