"""One field of a settings dataclass gives the option, the checkpoint's identity and the recipe."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tools_zoo.training.settings import (
    RestorationTraining,
    TrainingSettings,
    add_options,
    from_arguments,
    identity,
    option,
    recipe,
)


@dataclass(frozen=True, kw_only=True)
class Example(RestorationTraining):
    """Settings with a field of each kind."""

    depth: int = option(8, "layers", values="positive")
    share: float = option(0.5, "of the patches", values="share")
    cold: bool = option(False, "start from random weights")
    shuffle: bool = option(True, "keep the order")
    tools: tuple[str, ...] = option((), "tools to train", metavar="TOOL")
    kind: Literal["plain", "deep"] = option("plain", "network")
    cores: int = option(1, "threads", recorded=False)


def parsed(cls: type, *words: str) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, cls)
    return from_arguments(cls, parser.parse_args(["--out", "x", *words]), command="train")


def test_one_field_gives_option_identity_and_recipe() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Extended(Example):
        width: int = option(16, "channels")

    settings = parsed(Extended, "--width", "32")
    assert settings.width == 32
    assert identity(settings) == identity(parsed(Example)) | {"width": 32}
    assert recipe(settings) == recipe(parsed(Example)) | {"width": 32}


def test_options_of_every_type() -> None:
    words = ["--depth", "3", "--share", "1", "--cold", "--no-shuffle", "--tools", "a", "b"]
    words += ["--kind", "deep", "--cores", "2", "--images", "p"]
    settings = parsed(Example, *words)
    assert (settings.out, settings.images) == (Path("x"), Path("p"))
    assert (settings.depth, settings.share, settings.cold, settings.shuffle) == (3, 1.0, True, False)
    assert (settings.tools, settings.kind, settings.cores) == (("a", "b"), "deep", 2)
    assert parsed(Example) == Example(out=Path("x"), command="train")


def test_identity_holds_the_recorded_settings_as_plain_values() -> None:
    found = identity(parsed(Example, "--tools", "a"))
    assert found["tools"] == ["a"]
    assert not {"out", "cores", "workers", "device", "command", "minutes", "steps"} & found.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depth": 0}, "depth must be a positive number, got 0"),
        ({"share": 1.5}, r"share must lie in \[0, 1\], got 1.5"),
        ({"kind": "wide"}, "kind must be one of plain, deep, got 'wide'"),
    ],
)
def test_values_out_of_range(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Example(out=Path("x"), **change)


def test_weights_need_a_path_that_is_text() -> None:
    with pytest.raises(ValueError, match="path that is UTF-8"):
        parsed(Example, "--out", "a\udcff/b")
    assert parsed(Example, "--out", "größer/好").out == Path("größer/好")


def test_minutes_and_steps_exclude_each_other() -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parsed(TrainingSettings, "--minutes", "1", "--steps", "2")
    with pytest.raises(ValueError, match="give either minutes or steps, not both"):
        TrainingSettings(out=Path("x"), minutes=1, steps=2)
    assert parsed(TrainingSettings).budget.minutes == TrainingSettings.MINUTES
    assert parsed(TrainingSettings, "--steps", "2").budget.steps == 2


def test_the_learning_rate_is_the_optimizer_s_unless_given() -> None:
    assert Example(out=Path("x")).highest_rate == Example.LEARNING_RATES["muon"]
    assert Example(out=Path("x"), optimizer="adam").highest_rate == Example.LEARNING_RATES["adam"]
    assert Example(out=Path("x"), learning_rate=0.5).highest_rate == 0.5
