"""Optional packages: each extra brings what it says, what lacks one says so, and every package is pinned."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agents.cli import main
from restore_env.env import ImageRestoreEnv
from restore_env.extras import EXTRAS, MissingExtraError, require_extra
from tools_zoo.figures import check_figure
from tools_zoo.training.display import TrainingDisplay

ROOT = Path(__file__).resolve().parents[2]
PROJECT = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {
    *("gymnasium", "stable-baselines3", "torch", "numpy", "scikit-image", "opencv-python-headless", "albumentations"),
    *("sb3-contrib", "pillow", "safetensors"),
}


def requirements(extra: str) -> Iterator[Requirement]:
    """What an extra asks for, other extras of this package resolved."""
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            for other in requirement.extras:
                yield from requirements(other)
        else:
            yield requirement


@pytest.fixture
def nothing_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no extra is installed."""
    for packages in EXTRAS.values():
        for name in packages:
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_packages_of_its_name(extra: str) -> None:
    brought = {canonicalize_name(requirement.name) for requirement in requirements(extra)}
    assert {canonicalize_name(name) for name in EXTRAS[extra]} <= brought


def test_nothing_more_is_installed_than_is_needed() -> None:
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == CORE


@pytest.mark.usefixtures("nothing_optional")
@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_package_is_named_with_its_extra(extra: str) -> None:
    message = rf"^export needs {EXTRAS[extra][0]}, which is not installed: pip install 'imagerestore\[{extra}\]'$"
    with pytest.raises(MissingExtraError, match=message):
        require_extra(extra, "export")


@pytest.mark.usefixtures("nothing_optional")
def test_figures_trainings_and_windows_need_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(MissingExtraError, match=r"^a\.png: a figure needs matplotlib"):
        check_figure("a.png")
    with pytest.raises(MissingExtraError, match=r"^training needs tensorboard"):
        TrainingDisplay()
    with pytest.raises(ValueError, match=r'^render_mode="human" needs matplotlib'):
        ImageRestoreEnv(render_mode="human")


@pytest.mark.usefixtures("nothing_optional")
@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("plots", "explain a.png -o out.png"),
        ("train", "train tools --out out --minutes 1"),
        ("onnx", "export onnx --out out"),
    ],
)
def test_commands_say_in_one_line_which_extra_they_lack(
    extra: str, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"which is not installed: pip install 'imagerestore[{extra}]'\n")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def brought_by(requirement: Requirement, version: str | None) -> list[Requirement]:
    """What an installed package asks for; nothing if it is missing, or of another version."""
    try:
        installed = distribution(requirement.name)
    except PackageNotFoundError:
        return []
    asked = map(Requirement, (installed.requires or []) if installed.version.partition("+")[0] == version else [])
    extras = (*requirement.extras, "")
    return [one for one in asked if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)]


def test_every_package_of_an_installation_is_pinned() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", "\n".join(lines), flags=re.MULTILINE))
    assert len(pins) == len(lines)
    waiting = [*map(Requirement, PROJECT["dependencies"]), *requirements("dev"), *requirements("onnx")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) not in seen:
            seen.add((name, frozenset(requirement.extras)))
            waiting += brought_by(requirement, pins.get(name))
    assert {name for name, _ in seen} - {*pins} == set()
