"""``imagerestore explain``: the figure, what it is drawn from, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agents.restoration.explanation import draw_explanation, summarize_vote
from agents.restoration.restorer import Restorer, quality
from agents.restoration.tiled_episode import Vote
from restore_env.images.decoding import Photo, read_image
from restore_env.images.encoding import write_image
from restore_env.images.tiling import apply_tool, to_pixels, to_tensor
from tests.support.command_line import Shell, assert_one_line
from tests.support.image_files import picture
from tests.support.toolkit import Scripted, always, photographs, pixelwise_toolbox, random_agent, random_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


def vote_of(scores: list[list[float]]) -> Vote:
    """A row of tiles with these scores."""
    array = np.array(scores, dtype=np.float32)[None]
    return Vote("?", {}, array.argmax(axis=2), array, (np.array([0.0, 1]), np.linspace(0, 1, len(scores) + 1)))


# What the Restorer tells --------------------------------------------------------------------------------------------


def test_stages_are_the_images_between_the_tools() -> None:
    toolbox, (target,) = random_toolbox(), photographs(1, 100, 130)
    image = np.clip(target.astype(int) + 12, 0, 255).astype(np.uint8)
    restorer = Restorer(toolbox, random_agent(toolbox.names, seed=1))
    plain, kept = restorer.restore(image, target), restorer.restore(image, target, keep_stages=True)
    assert plain.stages == ()
    assert (plain.toolchain, plain.psnr_after) == (kept.toolchain, kept.psnr_after)
    assert len(kept.toolchain) > 0
    working = to_tensor(image)
    expected = [to_pixels(working)]
    for name in kept.toolchain:
        working = apply_tool(toolbox[toolbox.action(name)], working)
        expected.append(to_pixels(working))
    assert len(kept.stages) == len(expected)
    for stage, pixels in zip(kept.stages, expected, strict=True):
        np.testing.assert_array_equal(stage.image, pixels)
        assert stage.psnr == quality(pixels, target)
    assert (kept.stages[0].psnr, kept.stages[-1].psnr) == (kept.psnr_before, kept.psnr_after)


def test_votes_know_their_scores_and_places() -> None:
    toolbox = random_toolbox()
    agent = random_agent(toolbox.names)
    vote = Restorer(toolbox, agent).restore(photographs(1, 100, 130)[0]).votes[0]
    assert vote.scores is not None
    assert vote.scores.shape == (2, 3, 13)
    np.testing.assert_array_equal(vote.scores.argmax(axis=2), vote.grid)
    np.testing.assert_allclose(vote.edges[0] * 100, [0, 63, 100])
    np.testing.assert_allclose(vote.edges[1] * 130, [0, 63, 126, 130])
    small = Restorer(toolbox, agent).restore(photographs(1, 40, 130)[0]).votes[0]
    np.testing.assert_allclose(small.edges[0], [0, 1])
    agent.recipe = {"borders": False}
    full = Restorer(toolbox, agent).restore(photographs(1, 100, 130)[0]).votes[0]
    np.testing.assert_allclose(full.edges[1] * 130, [0, 63, 126])


# Summing up ---------------------------------------------------------------------------------------------------------


def test_logits_become_mean_probabilities() -> None:
    scores = summarize_vote(vote_of([[0, np.log(3), -np.inf], [np.log(4), 0, -np.inf]]), "logits", 3)
    assert scores.measure == "probability"
    np.testing.assert_allclose(scores.values, [(0.25 + 0.8) / 2, (0.75 + 0.2) / 2, np.nan], atol=1e-6)


def test_without_scores_votes_are_counted() -> None:
    policy = Scripted(lambda seen: np.array([0, 1, 0, 2]))
    (vote,) = Restorer(pixelwise_toolbox(), policy, max_steps=1).restore(picture(16, 16)).votes
    scores = summarize_vote(vote, None, 4)
    assert scores.measure == "share of votes"
    np.testing.assert_allclose(scores.values, [2 / 4, 1 / 4, 1 / 4, 0])


# The figure ---------------------------------------------------------------------------------------------------------


def test_the_figure_shows_every_stage(tmp_path: Path) -> None:
    """Each stage's picture, of one colour, is found in the figure at the place of its column."""
    policy = Scripted(always(1), always(1), always(3))
    toolbox = pixelwise_toolbox()
    image = np.full((63, 63, 3), (250, 0, 0), np.uint8)
    result = Restorer(toolbox, policy).restore(image, image, keep_stages=True)
    path = tmp_path / "figure.png"
    draw_explanation(path, result, toolbox.names, None, target=np.full((63, 63, 3), (0, 0, 251), np.uint8))
    pixels = read_image(path).pixels
    columns = []
    for colour in [*(stage.image[0, 0] for stage in result.stages), (0, 0, 251)]:
        found = np.flatnonzero((pixels == np.asarray(colour)).all(axis=2).any(axis=0))
        assert len(found) > 100
        columns.append(found.mean())
    assert columns == sorted(columns)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    toolbox = pixelwise_toolbox()
    result = Restorer(toolbox, Scripted(always(3))).restore(picture())
    with pytest.raises(ValueError, match="keep_stages"):
        draw_explanation(tmp_path / "a.png", result, toolbox.names, None)
    with pytest.raises(ValueError, match=r"a\.jpg: a figure ends in \.png, \.pdf or \.svg"):
        draw_explanation(tmp_path / "a.jpg", result, toolbox.names, None)
    assert list(tmp_path.iterdir()) == []


# The command --------------------------------------------------------------------------------------------------------


def save(name: str, brighter: int = 0) -> None:
    write_image(name, Photo(np.clip(picture().astype(int) + brighter, 0, 255).astype(np.uint8)))


def test_explain_writes_a_figure_and_one_line(shell: Shell) -> None:
    save("photo.png", 9)
    save("clean.png")
    code, out, err = shell("explain", "photo.png", "--target", "clean.png")
    assert (code, err) == (0, "")
    assert out.startswith("photo.png -> photo.explained.png: ")
    assert " dB (" in out
    assert out.count("\n") == 1
    assert min(read_image(Path("photo.explained.png")).pixels.shape[:2]) > 500
    assert shell.listing() == ["clean.png", "photo.explained.png", "photo.png"]


def test_explain_tells_the_chain_that_restore_takes(shell: Shell) -> None:
    save("photo.png", 9)
    told = json.loads(shell("explain", "photo.png", "-o", "figure.svg", "--json")[1])
    taken = json.loads(shell("restore", "photo.png", "--json")[1])
    assert told["toolchain"] == taken["toolchain"]
    assert told["votes"] == taken["votes"]
    assert [step["action"] for step in told["steps"]] == [vote["action"] for vote in taken["votes"]]
    for step in told["steps"]:
        assert sum(step["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert max(step["scores"], key=step["scores"].__getitem__) == step["action"]  # there is one tile
    assert Path("figure.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("name", ["a $x^ b$.png", "写真.png", "two\nlines.png", "caf\udce9.png"])
def test_files_of_any_name(name: str, shell: Shell) -> None:
    save("photo.png")
    Path("photo.png").rename(name)
    code, out, err = shell("explain", name)
    assert (code, err, out.count("\n")) == (0, "", 1)


def test_a_folders_search_passes_figures_over(shell: Shell) -> None:
    Path("photos").mkdir()
    save("photos/photo.png")
    assert shell("explain", "photos/photo.png")[0] == 0
    assert shell("restore", "photos")[1].count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.png",), "nowhere.png"),
        (("photo.png", "-o", "photo.png"), "is an input of this run"),
        (("photo.png", "-o", "old.png"), "old.png: exists; --force overwrites it"),
        (("photo.png", "-o", "figure.jpg"), "a figure ends in .png, .pdf or .svg"),
        (("photo.png", "--target", "old.png"), "must be of one size"),
    ],
)
def test_explain_fails_in_one_line(arguments: tuple[str, ...], message: str, shell: Shell) -> None:
    save("photo.png")
    write_image("old.png", Photo(picture(10, 10)))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    code, out, err = shell("explain", *arguments)
    assert (code, out) == (2, "")
    assert_one_line(err, message)
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_explain_and_restore_take_regions(shell: Shell) -> None:
    save("photo.png", 9)
    told = json.loads(shell("explain", "photo.png", "-o", "figure.png", "--regions", "--json")[1])
    taken = json.loads(shell("restore", "photo.png", "--regions", "--json")[1])
    assert told["votes"] == taken["votes"]
    assert told["regions"] == taken["regions"]
    assert sum(region["share"] for region in taken["regions"]) == pytest.approx(1)
    code, out, err = shell("restore", "photo.png", "--regions", "--scale", "4", "--force")
    assert (code, out) == (2, "")
    assert_one_line(err, "regions work at scale 1: with scale 4 all tiles share one chain")
