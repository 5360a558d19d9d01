"""How a policy's input is made from an image, and tiles decide by it, as recorded in the policy's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class PolicyInput:
    """What a policy gets as input. The defaults are those of this project's policies."""

    observe: Literal["uint8", "float32"] = "uint8"
    """The environment's ``dtype``: "uint8", clipped and rounded; or "float32", the working image as it is."""
    borders: bool = True
    """Of whole images: add a last row and column of tiles, flush with the border, for what full tiles leave over."""
    decide: Literal["votes", "values"] = "votes"
    """How the tiles of a whole image decide: by "votes", the action that most of them choose; or by "values", for a
    policy whose scores are predicted gains: the action with the highest mean, as long as it is worth it."""

    def __post_init__(self) -> None:
        if self.observe not in ("uint8", "float32"):
            raise ValueError(f"observe must be 'uint8' or 'float32', got {self.observe!r}")
        if self.decide not in ("votes", "values"):
            raise ValueError(f"decide must be 'votes' or 'values', got {self.decide!r}")
        if not isinstance(self.borders, bool):
            raise ValueError(f"borders must be true or false, got {self.borders!r}")

    @classmethod
    def of(cls, policy: object) -> PolicyInput:
        """The input that the policy's recipe names under this class's field names, else the default.

        Raises:
            ValueError: an invalid value.
        """
        recipe: dict[str, Any] = getattr(policy, "recipe", None) or {}
        return cls(**{name: recipe[name] for name in cls.__dataclass_fields__ if name in recipe})


PUBLISHED = PolicyInput(observe="float32", borders=False)
"""Input of the published RL-Restore agent, by its authors' code: unclipped images, full tiles from the top left."""
