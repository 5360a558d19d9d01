"""``python -m benchmarks.regions``: composites are divided, and the table says what that gains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.restoration.restorer import Restorer
from benchmarks import photographs as photographs_module
from benchmarks import regions
from benchmarks.regions import CASES, measure
from restore_env.distortions.mixed import Composite
from restore_env.images.sources import ImageSource, open_images
from tests.agents.restoration.test_region_chains import DARK_UP_LIGHT_DOWN, ByBrightness, halves, slight_tools
from tests.support.toolkit import photographs

pytestmark = pytest.mark.usefixtures("one_thread")


def test_composites_come_first_and_follow_the_seed() -> None:
    drawn = {name: draw(np.random.default_rng(3)) for name, draw in CASES.items()}
    composite = [isinstance(distortion, Composite) for distortion in drawn.values()]
    assert composite == sorted(composite, reverse=True)
    assert 0 < sum(composite) < len(composite)
    assert drawn == {name: draw(np.random.default_rng(3)) for name, draw in CASES.items()}


def test_a_line_compares_regions_with_one_chain() -> None:
    source = open_images([halves()])
    assert isinstance(source, ImageSource)
    one, several = (
        Restorer(slight_tools(), ByBrightness(*DARK_UP_LIGHT_DOWN), regions=each, max_steps=1) for each in (False, True)
    )
    line = measure(one, several, source, "clean", seed=0)
    assert (line.photographs, line.divided) == (1, 1.0)
    assert line.before == 100.0
    assert 40 < line.one_chain < 100
    assert line.worst == pytest.approx(line.regions - line.one_chain)
    assert line.regions != line.one_chain


def test_the_command_prints_a_line_for_each_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photographs(1, 80, 130)[0]).save(tmp_path / "a.png")
    monkeypatch.setattr(photographs_module, "embedded_paths", list)
    monkeypatch.setattr(regions, "CASES", {name: CASES[name] for name in ("clean, noisy", "clean")})
    assert regions.main(["--images", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]
    assert [line["case"] for line in lines] == ["clean, noisy", "clean"]
    assert capsys.readouterr().out.count("\n| clean") == 2
