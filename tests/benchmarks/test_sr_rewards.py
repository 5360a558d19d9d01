from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import sr_rewards
from restore_env.images.decoding import Photo
from restore_env.images.encoding import write_image
from restore_env.toolbox import BICUBIC_X4, Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs; the toolbox repeats pixels (worse than bicubic) or enlarges bicubically (as good)."""
    for number, pixels in enumerate(photographs(2)):
        write_image(tmp_path / f"{number}.png", Photo(pixels))
    tools = Toolbox([*pixelwise_toolbox(super_resolver=True), BICUBIC_X4])
    monkeypatch.setattr(sr_rewards, "with_super_resolvers", lambda _: tools)
    monkeypatch.setattr("agents.imitation.demonstrations.EPISODES", 2)
    return tmp_path


def test_choices_and_gains_are_those_of_the_tools(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = folder / "card.md"
    card.write_text("<!-- sr-rewards:begin -->\n<!-- sr-rewards:end -->\n")
    words = ["--images", str(folder), "--train-images", str(folder), "--patches", "2", "--minutes", "0.02"]
    assert sr_rewards.main([*words, "--json", str(folder / "x.json"), "--card", str(card)]) == 0
    rows = {row["name"]: row for row in json.loads((folder / "x.json").read_text())["preferences"]}
    assert rows["always nearest_x4"]["gains"]["psnr"] < -1
    assert all(abs(gain) < 1e-6 for gain in rows["always bicubic_x4"]["gains"].values())
    assert rows["always bicubic_x4"]["shares"] == {"bicubic_x4": 1.0}
    for reward in sr_rewards.REWARDS:
        shares = rows[f"agent paid in {reward}"]["shares"]
        assert sum(shares.values()) == pytest.approx(1)
    assert "| agent paid in perceptual |" in capsys.readouterr().out
    assert "python -m benchmarks.sr_rewards" in card.read_text()


def test_an_agent_learns_from_each_reward_that_is_named(folder: Path) -> None:
    words = ["--images", str(folder), "--patches", "1", "--minutes", "0.01", "--rewards", "ssim"]
    assert sr_rewards.main([*words, "--train-images", str(folder), "--json", str(folder / "x.json")]) == 0
    names = [row["name"] for row in json.loads((folder / "x.json").read_text())["preferences"]]
    assert [name for name in names if "agent" in name] == ["agent paid in ssim"]


def test_a_card_without_the_section_is_refused_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "card.md").write_text("nothing here\n")
    assert sr_rewards.main(["--images", str(folder), "--card", str(folder / "card.md")]) == 2
    assert "sr-rewards:begin" in capsys.readouterr().err
