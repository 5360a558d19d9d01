"""Where a training distorts its patches: on the host or on a device."""

from __future__ import annotations

from restore_env.task import DRAWS, check_draws


def drawn_on(draws: str, device: str) -> str | None:
    """The device on which training on ``device`` distorts its patches; None: the host.

    Raises:
        ValueError: ``draws`` is neither "host" nor "device".
    """
    return device if check_draws(draws) == "device" else None


def drawing(draws: str) -> dict[str, str]:
    """What a run's identity and recipe say of where its patches are distorted: nothing, if that is the host."""
    return {} if draws == DRAWS[0] else {"draws": draws}
