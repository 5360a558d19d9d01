"""The pages are true: their Python runs, their commands and options exist, their links and pictures are there."""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from agents.cli import build_parser
from agents.training.algorithms import ALGORITHMS
from restore_env import IDS
from tests.support.image_files import picture

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.name != "bench.md"]
CARDS = [
    path
    for folder in ("agents", "benchmarks", "sr_models", "tools_zoo")
    for path in sorted((ROOT / folder / "weights").rglob("*"))
    if path.suffix in (".md", ".sh")
]
SHIPPED = {"default", "classic", "pure"}
SHORT = {
    "learn(200_000)": "learn(4)",
    "RestoreVecEnv(64, ": "RestoreVecEnv(2, upscale=(1,), ",
    "n_steps=18": "n_steps=2",
    "batch_size=384": "batch_size=4",
    "learn(1_000)": "learn(210)",
}
"""What makes the blocks' trainings short."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def with_python(pages: list[Path]) -> list[Path]:
    return [page for page in pages if blocks(page, "python")]


@pytest.mark.parametrize("page", with_python(PAGES), ids=name_of)
def test_python_runs_as_written(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from restore_env.images.decoding import Photo
    from restore_env.images.encoding import write_image

    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.jpg", Photo(picture(90, 100)))
    text = "\n".join(blocks(page, "python"))
    for written, short in SHORT.items():
        text = text.replace(written, short)
    exec(compile(text, str(page), "exec"), {"__name__": "page"})


def test_the_quickstart_trains_with_the_shipped_hyperparameters() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text()
    for name, value in ALGORITHMS["ppo"].hyperparameters().items():
        written = {"learning_rate": "learning_rate=LinearSchedule(5e-4, 0, 1)", "n_envs": f"RestoreVecEnv({value})"}
        assert written.get(name, f"{name}={value},") in text


class Parsed(Exception):  # noqa: N818
    """Raised where a program has parsed its arguments and would begin."""


def commands(text: str) -> list[list[str]]:
    """The command lines of a page's shell blocks, in words."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    starts = ("imagerestore ", "python -m ", "make ")
    return [shlex.split(line, comments=True) for line in lines if line.startswith(starts)]


def accepted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    try:
        check_command(words, monkeypatch)
    except SystemExit:
        return False
    return True


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), words
    elif words[0] == "imagerestore":
        build_parser().parse_args(words[1:])
    elif words[2].startswith("benchmarks"):
        parse = argparse.ArgumentParser.parse_args

        def parse_only(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> NoReturn:
            parse(parser, arguments)
            raise Parsed

        package = (ROOT / words[2].replace(".", "/")).is_dir()
        module = importlib.import_module(words[2] + (".__main__" if package else ""))
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
            with pytest.raises(Parsed):
                module.main(words[3:])
    else:
        assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file() or words[2] in ("venv", "pytest"), words


PROGRAM = """#!/usr/bin/env bash
for word in "$(basename "$0")" "$@"; do printf '%s\\0' "$word" >> {log}; done; printf '\\n' >> {log}
while [ $# -gt 0 ]; do
  if [ "$1" = --out ]; then mkdir -p "$2"; touch "$2/toolbox.json" "$2/tool.safetensors"; fi
  shift
done
"""
"""Stands in for a training program: notes its arguments and makes its folder."""


@pytest.mark.parametrize("recipe", [path for path in CARDS if path.suffix == ".sh"], ids=name_of)
def test_recipes_commands_and_options_exist(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    for name in ("imagerestore", "python"):
        (tmp_path / name).write_text(PROGRAM.format(log=log))
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(recipe), "photos", "labels", "squeezenet.npz"]
    subprocess.run(command, cwd=tmp_path, env={"PATH": path}, check=True)
    lines = [line.split("\0")[:-1] for line in log.read_text().splitlines()]
    assert [shlex.join(words) for words in lines if not accepted(words, monkeypatch)] == []
    made: set[str] = set()
    for words in lines:
        options = dict(itertools.pairwise(words))
        for option in ("--toolbox", "--policy", "--init"):
            start = Path(options.get(option, "default"))
            named = str(start) in SHIPPED or ":" in str(start)
            assert named or start.parts[0] in made, f"{option} {start}: nothing makes it"
        made.add(options["--out"])


@pytest.mark.parametrize("page", [*PAGES, *(path for path in CARDS if path.suffix == ".md")], ids=name_of)
def test_commands_and_options_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(blocks(page, ""))
    refused = [shlex.join(words) for words in commands(text) if not accepted(words, monkeypatch)]
    assert refused == []


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", *CARDS], ids=name_of)
def test_named_modules_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:restore_env|tools_zoo|sr_models|agents|benchmarks)/[\w/]*(?:\.py)?)`", page.read_text()
    ):
        assert (ROOT / name).exists(), name


def test_the_page_for_researchers_lists_every_id() -> None:
    text = (ROOT / "docs" / "research.md").read_text()
    assert [env_id for env_id in IDS if f"`{env_id}`" not in text] == []


def test_every_picture_is_used() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert [path.name for path in (ROOT / "docs").rglob("*.png") if path.name not in text] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


@pytest.mark.parametrize("card", [path for path in CARDS if path.suffix == ".md"], ids=name_of)
def test_model_cards_are_short_and_have_a_recipe_beside_them(card: Path) -> None:
    text = card.read_text()
    assert len(re.sub(r"(?m)^\|.*", "", text).split()) <= 350  # beside its tables
    for heading in ("Use", "Data and licence", "Recipe", "Results", "Limits"):
        assert f"\n## {heading}\n" in text, heading
    assert re.search(r"\w+\.sh\b", text)
