"""Distortions that no shipped tool or agent was trained on, as factories that a task and a level set name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from benchmarks.compare.distortions import composed

motion = partial(composed, "motion")
haze = partial(composed, "haze")
low_light = partial(composed, "low_light")
rain = partial(composed, "rain")
poisson = partial(composed, "poisson")
webp = partial(composed, "webp")

UNSEEN: Mapping[str, str] = MappingProxyType(
    {
        title: f"{__name__}:{name}"
        for title, name in (
            ("motion blur", "motion"),
            ("haze", "haze"),
            ("low light", "low_light"),
            ("rain streaks", "rain"),
            ("shot noise", "poisson"),
            ("WebP", "webp"),
        )
    }
)
"""Import strings for a task's ``distortion``, by title. In the mixed world shot noise and WebP come only with others:
shot noise with demosaicing, WebP as one of two formats.
"""
