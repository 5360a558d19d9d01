"""Settings of trainings: one frozen dataclass per training is the only place where they are listed.

A field that is made by :func:`option` gives everything else: the command-line option (:func:`add_options`,
:func:`from_arguments`), the entry by which a checkpoint is compared (:func:`identity`) and the entry in the weights'
metadata and the model card (:func:`recipe`). A field that does not change the weights (folders, devices, threads) is
``recorded=False``.
"""

from __future__ import annotations

import argparse
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

_Settings = TypeVar("_Settings")


def option(
    default: Any = MISSING,
    help: str = "",  # noqa: A002 - argparse's word
    *,
    values: Literal["positive", "share"] | None = None,
    choices: Sequence[Any] | None = None,
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    recorded: bool = True,
    group: str | None = None,
) -> Any:
    """A dataclass field that is a setting of a training.

    Args:
        default: its value unless another is given; without one the option is required.
        help: of the command-line option; without it there is no such option.
        values: "positive" numbers only, or a "share" in [0, 1].
        choices: allowed values; those of a ``Literal`` type need not be repeated.
        parse: makes a value of a word of the command line; by default the field's type.
        metavar: the value's name in the help text.
        recorded: whether it is part of identity and recipe.
        group: options of one group exclude each other.
    """
    spec = {"help": help, "values": values, "choices": choices, "parse": parse, "metavar": metavar}
    return field(default=default, metadata=spec | {"recorded": recorded, "group": group})


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add an option ``--snake-case`` for every setting of a dataclass.

    Truth values become flags (``--name``, or ``--no-name`` if they are on by default), tuples take several words.
    """
    hints = typing.get_type_hints(cls)
    groups: dict[str, Any] = {}
    for each in _options(cls):
        spec = each.metadata
        if not spec["help"]:
            continue
        target: Any = parser
        if spec["group"] is not None:
            target = groups.get(spec["group"]) or groups.setdefault(
                spec["group"], parser.add_mutually_exclusive_group()
            )
        arguments: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(each)}
        name = f"--{each.name.replace('_', '-')}"
        kind, literals, several = _kind(hints[each.name])
        if kind is bool:
            arguments |= {"action": "store_const", "const": not each.default, "dest": each.name}
            name = f"--no-{name[2:]}" if each.default else name
        else:
            arguments |= {"type": spec["parse"] or kind, "choices": spec["choices"] or literals}
            arguments |= {"metavar": spec["metavar"], "required": each.default is MISSING}
            arguments |= {"nargs": "+", "action": "extend"} if several else {}
        target.add_argument(name, **arguments)


def from_arguments(cls: type[_Settings], namespace: argparse.Namespace, **others: Any) -> _Settings:
    """The settings that parsed options ask for.

    Args:
        cls: the dataclass whose options were added.
        namespace: what was parsed.
        others: values of further fields, or in place of what was parsed.

    Raises:
        ValueError: a value that the settings do not allow.
    """
    parsed = {each.name: getattr(namespace, each.name) for each in _options(cls) if hasattr(namespace, each.name)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in parsed.items()}
    return cls(**{**values, **others})


def identity(settings: Any) -> dict[str, Any]:
    """The recorded settings as plain values: what a checkpoint is compared by."""
    recorded = (each.name for each in _options(type(settings)) if each.metadata["recorded"])
    return {name: _plain(getattr(settings, name)) for name in recorded}


def recipe(settings: Any) -> dict[str, Any]:
    """What weights record of their training: the recorded settings and the command line."""
    command = getattr(settings, "command", "")
    return identity(settings) | ({"command": command} if command else {})


def check_settings(settings: Any) -> None:
    """Raise ``ValueError``, which names the setting, if a value lies outside of what its field allows."""
    hints = typing.get_type_hints(type(settings))
    for each in _options(type(settings)):
        value = getattr(settings, each.name)
        if value is None:
            continue
        choices = each.metadata["choices"] or _kind(hints[each.name])[1]
        for one in value if isinstance(value, tuple) else (value,):
            if choices and one not in choices:
                raise ValueError(f"{each.name} must be one of {', '.join(map(str, choices))}, got {one!r}")
            if each.metadata["values"] == "share" and not 0 <= one <= 1:
                raise ValueError(f"{each.name} must lie in [0, 1], got {one}")
            if each.metadata["values"] == "positive" and not 0 < one < math.inf:
                raise ValueError(f"{each.name} must be a positive number, got {one}")


def _options(cls: type) -> list[Field[Any]]:
    return [each for each in fields(cls) if "recorded" in each.metadata]


def _help(each: Field[Any]) -> str:
    text = str(each.metadata["help"]).replace("%", "%%")
    if each.default in (MISSING, None, "", ()) or isinstance(each.default, bool) or "(default" in text:
        return text
    default = " ".join(map(str, each.default)) if isinstance(each.default, tuple) else each.default
    return f"{text} (default {default})"


def _kind(hint: Any) -> tuple[Any, tuple[Any, ...] | None, bool]:
    """What parses a word for a type, the values of a ``Literal``, and whether there may be several."""
    several = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is tuple:
        hint, several = typing.get_args(hint)[0], True
    if typing.get_origin(hint) is Literal:
        literals = typing.get_args(hint)
        return type(literals[0]), literals, several
    return hint, None, several


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


@dataclass(frozen=True)
class Budget:
    """When to stop: after ``steps``, or, by the wall clock, after ``minutes``."""

    minutes: float | None = None
    steps: int | None = None

    def share(self, steps: int, seconds: float) -> float:
        """What share of it is used, from 0; at 1 it is used up."""
        return steps / self.steps if self.steps else seconds / (60 * (self.minutes or 1))


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What every training takes."""

    MINUTES: ClassVar[float] = 30.0
    """The budget if none is given."""

    out: Path = option(help="folder for weights, checkpoints, logs, model card", recorded=False)
    minutes: float | None = option(
        None, "wall-clock budget", values="positive", recorded=False, group="budget", metavar="MINUTES"
    )
    steps: int | None = option(None, "steps, instead of minutes", values="positive", recorded=False, group="budget")
    seed: int = option(0, "of all random numbers")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...", recorded=False)
    precision: Literal["fp32", "bf16"] = option("fp32", "bf16 is faster only where the hardware has it")
    command: str = option("", recorded=False)
    """The command line, for the model card."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give either minutes or steps, not both")
        if os.fsencode(self.out).decode(errors="ignore") != str(self.out):
            raise ValueError(f"out {self.out}: weights need a path that is UTF-8, choose another name")

    @property
    def budget(self) -> Budget:
        """``minutes`` or ``steps``, or the training's usual minutes."""
        return Budget(None if self.steps else self.minutes or self.MINUTES, self.steps)


@dataclass(frozen=True, kw_only=True)
class PhotographSettings:
    """Where photographs come from. To be combined with :class:`TrainingSettings`."""

    images: Path | None = option(None, "folder of clean photographs (default: the embedded ones)", recorded=False)
    cache_dir: Path | None = option(None, "keep the decoded images here for the next run", recorded=False)


@dataclass(frozen=True, kw_only=True)
class NetworkTraining(TrainingSettings):
    """What every training by :func:`tools_zoo.training.trainer.fit` takes."""

    LEARNING_RATES: ClassVar[Mapping[str, float]] = types.MappingProxyType({"adam": 2e-3, "adamw": 2e-3, "muon": 3e-3})
    """The learning rate of each optimizer if none is given."""

    batch_size: int = option(16, "images in a batch", values="positive")
    optimizer: Literal["adam", "adamw", "muon"] = option("adam", "how weights are updated")
    learning_rate: float | None = option(None, "at its highest (default: the optimizer's)", values="positive")
    warmup_steps: int = option(100, "steps in which the learning rate rises", values="positive")
    clip_norm: float = option(0.1, "largest norm of a gradient", values="positive")
    ema_decay: float = option(0.998, "decay of the exponential moving average of the weights", values="share")
    workers: int = option(1, "threads that make batches", values="positive", recorded=False)

    @property
    def highest_rate(self) -> float:
        """The learning rate between warm-up and decay."""
        return self.learning_rate or self.LEARNING_RATES[self.optimizer]


@dataclass(frozen=True, kw_only=True)
class RestorationTraining(PhotographSettings, NetworkTraining):
    """What trainings of restoration networks on distorted patches take."""

    optimizer: Literal["adam", "adamw", "muon"] = option("muon", "how weights are updated")
    loss: Literal["psnr", "mse"] = option("psnr", "psnr: the logarithm of each image's mean squared error")
    patch_size: int = option(48, "pixels of the distorted patches", values="positive")
    draws: Literal["host", "device"] = option(
        "host", "where patches are distorted: one by one on the host, or a batch at once on the device, for a GPU"
    )

    @property
    def draw_device(self) -> str | None:
        """Where patches are distorted together; None: on the host, one by one."""
        return self.device if self.draws == "device" else None
