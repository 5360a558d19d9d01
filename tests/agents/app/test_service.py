"""What is behind the page, without gradio: the files that it gives, errors, views, tables and sessions."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents.app.choices import Choices, command_for
from agents.app.examples import ROWS, make_examples
from agents.app.service import Outcome, Refused, Service, Stopped
from agents.app.sessions import Sessions
from agents.app.tables import error_text, outcome_text
from agents.app.views import WHOLE, make_views
from agents.restoration.explanation import action_colours, vote_picture
from agents.restoration.restorer import Restorer
from agents.restoration.tiled_episode import Vote
from restore_env.images.decoding import read_image
from tests.support.command_line import TOOLS, Shell, assert_one_line
from tests.support.image_files import encode, exif_of, picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def service(model: tuple[str, ...]) -> Service:
    options = dict(zip(model[::2], model[1::2], strict=True))
    restorer = Restorer(options["--toolbox"], options["--policy"], super_resolver="bicubic_x4")
    return Service(restorer, megapixels=0.1, options=options | {"--super-resolver": "bicubic_x4"})


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "my photo.jpg"
    path.write_bytes(encode(picture(70, 90), "JPEG", exif=exif_of(6), comment=b"by the sea", dpi=(300, 300)))
    return path


def restore(service: Service, photo: Path, folder: Path, **choices: Any) -> Outcome:
    folder.mkdir(exist_ok=True)
    return service.restore(photo, folder, Choices(**choices))


# The file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"strength": 0.35, "file_format": "same"},
        {"tools": ("dejpeg_1", "denoise_2", "dejpeg_1", "denoise_2"), "file_format": "webp"},
        {"scale": 2, "tools": ("denoise_2",), "caution": 0.5},
    ],
    ids=str,
)
def test_the_file_is_that_of_the_command(
    service: Service, photo: Path, tmp_path: Path, shell: Shell, choices: dict[str, Any]
) -> None:
    outcome = restore(service, photo, tmp_path / "page", **choices)
    words = shlex.split(outcome.command)
    assert words[:3] == ["imagerestore", "restore", photo.name]
    code, _, err = shell(*words[1:], model=False)
    assert code == 0, err
    assert outcome.path.name.startswith("my photo.restored.")
    assert outcome.path.read_bytes() == photo.with_name(outcome.path.name).read_bytes()
    with Image.open(outcome.path) as kept:
        assert dict(kept.getexif())
    if "tools" in choices:
        assert outcome.result.toolchain[: len(choices["tools"])] == choices["tools"]


def test_commands_quote_names() -> None:
    assert command_for("a b.png", Choices()) == "imagerestore restore 'a b.png'"
    assert command_for("-x.png", Choices()) == "imagerestore restore ./-x.png"
    options = {"--policy": "classic", "--super-resolver": "sed", "--backend": "ncnn"}
    by_hand = command_for("a.png", Choices(tools=("denoise_2",)), options)
    assert by_hand == "imagerestore restore a.png --tools denoise_2 --backend ncnn"
    larger = command_for("a.png", Choices(scale=4), options)
    assert larger == "imagerestore restore a.png --scale 4 --policy classic --super-resolver sed --backend ncnn"


def test_a_visitors_caution_does_not_stay(service: Service, photo: Path, tmp_path: Path) -> None:
    before = service.restorer.caution
    restore(service, photo, tmp_path / "page", caution=1.5)
    assert service.restorer.caution == before


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.png", b"", "the file is empty"),
        ("notes.txt", b"no picture", "not an image of a supported kind"),
        ("cut.png", encode(picture(70, 90))[:300], "damaged"),
        ("large.png", encode(picture(400, 400)), "more than the 0.1 megapixels allowed here"),
    ],
)
def test_errors_are_plain_words(service: Service, tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Refused, match=said) as refused:
        restore(service, tmp_path / name, tmp_path / "page")
    message = str(refused.value)
    assert name in message
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert not list((tmp_path / "page").iterdir())


def test_an_upload_that_is_gone_is_asked_for_again(service: Service, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="choose it again"):
        restore(service, tmp_path / "gone.png", tmp_path / "page")


def test_a_scale_counts_for_the_limit(service: Service, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="upscaled 4 times is more than"):
        restore(service, photo, tmp_path / "page", scale=4)


def test_a_defect_of_ours_is_no_traceback_on_the_page(
    service: Service, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(Restorer, "restore", broken)
    with pytest.raises(Refused, match=r"my photo.jpg: something went wrong here \(KeyError\)"):
        restore(service, photo, tmp_path / "page")


def test_work_can_be_stopped(service: Service, photo: Path, tmp_path: Path) -> None:
    def stop(what: str, share: float) -> None:
        raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        service.restore(photo, tmp_path, Choices(), progress=stop)
    assert restore(service, photo, tmp_path / "page").path.exists()  # the next one is not locked out


def test_without_gradio_the_command_says_what_to_install(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = shell("app", model=False)
    assert code == 2
    assert_one_line(err, "imagerestore app needs gradio", "pip install 'imagerestore[app]'")


def test_a_place_in_use_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore_env.extras.require_extra", lambda extra, what: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = shell("app", "--port", port, model=False)
    assert code == 2
    assert_one_line(err, f"127.0.0.1, port {port}: Address already in use", "--port")
    code, _, err = shell("app", "--port", "70000", model=False)
    assert code == 2
    assert_one_line(err, "port 70000", "0-65535")
    code, _, err = shell("app", "--host", "no.such.host.invalid", model=False)
    assert code == 2
    assert_one_line(err, "cannot listen at no.such.host.invalid")


# What is shown -------------------------------------------------------------------------------------------------------


def test_views_show_each_step(service: Service, photo: Path, tmp_path: Path) -> None:
    outcome = restore(service, photo, tmp_path / "page")
    chain = outcome.result.toolchain
    views = make_views(outcome, service.restorer, tmp_path)
    assert [view.title for view in views] == [WHOLE, *(f"{n}. {name}" for n, name in enumerate(chain, 1))]
    whole, first, last = views[0], views[1], views[-1]
    assert (whole.before, whole.after, whole.votes) == (first.before, last.after, None)
    assert [view.before for view in views[2:]] == [view.after for view in views[1:-1]]
    size = outcome.result.image.shape[1::-1]
    for view in views[1:]:
        assert view.votes is not None
        assert {read_image(path).pixels.shape[1::-1] for path in (view.before, view.after, view.votes)} == {size}
        assert all(name in view.scores for name in (*TOOLS, "stop"))
    shown = read_image(last.after).pixels.astype(int)
    assert np.abs(shown - outcome.result.image).mean() < 3


def test_a_step_by_hand_has_no_votes(service: Service, photo: Path, tmp_path: Path) -> None:
    outcome = restore(service, photo, tmp_path / "page", tools=("denoise_2",))
    _, step = make_views(outcome, service.restorer, tmp_path)
    assert step.title == "1. denoise_2"
    assert step.votes is None
    assert "by hand" in step.scores


def test_the_picture_of_votes_has_the_colours_of_the_choices() -> None:
    names = ("denoise_1", "deblur_1", "stop")
    grid = np.array([[0, 1], [2, 0]])
    edges = (np.array([0, 0.5, 1]), np.array([0, 0.5, 1]))
    image = np.full((80, 121, 3), 128, np.uint8)
    shown = vote_picture(image, Vote("deblur_1", {}, grid, None, edges), names)
    assert shown.shape == image.shape
    from matplotlib.colors import to_rgb

    pale = 140 + 128 * (115 / 255)
    for row, column in np.ndindex(2, 2):
        colour = np.array(to_rgb(action_colours(names)[grid[row, column]])) * 255
        middle = shown[20 + 40 * row, 30 + 60 * column]
        np.testing.assert_allclose(middle, 0.62 * colour + 0.38 * pale, atol=3)


def test_tables_escape_names_and_tell_what_came(service: Service, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    target = np.clip(read_image(photo).pixels.astype(int) + 9, 0, 255).astype(np.uint8)
    outcome = service.restore(photo, tmp_path / "page", Choices(), target)
    result = outcome.result
    text = outcome_text("<script>.png", result, outcome.choices, ["cut short"])
    assert "<script>" not in text
    assert "&lt;script&gt;.png" in text
    assert "Note: cut short." in text
    assert result.stages[0].psnr is not None
    assert result.stages[-1].psnr is not None
    assert f"<td>{result.stages[-1].psnr - result.stages[0].psnr:+.2f}</td>" in text
    assert "clean version" not in text
    same = service.restore(photo, tmp_path / "page", Choices(strength=0), read_image(photo))
    assert "Nothing is wrong with this photograph. PSNR of the result: 100.0 dB." in outcome_text(
        photo.name, same.result, same.choices, []
    )
    plain = restore(service, photo, tmp_path / "other")
    assert "clean version" in outcome_text(photo.name, plain.result, plain.choices, [])
    assert "<b>" not in error_text("<b>")


def test_examples_are_ten_photographs(tmp_path: Path) -> None:
    examples = make_examples(tmp_path)
    assert len({example.path.name for example in examples}) == len(ROWS) == 10
    for example in examples:
        photo = read_image(example.path)
        assert photo.grey == (example.path.stem in {"camera", "coins", "clock_motion"})
        if example.clean is not None:
            height, width = photo.pixels.shape[:2]
            assert example.clean.shape == (height * example.row.scale, width * example.row.scale, 3)
            assert (example.row.distort is None) == np.array_equal(example.clean, photo.pixels)


# Sessions ------------------------------------------------------------------------------------------------------------


def test_a_session_leaves_nothing(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "sessions")
    mine, other = sessions.get("a"), sessions.get("b")
    assert sessions.get("a") is mine
    own, both = tmp_path / "own.png", tmp_path / "both.png"
    for path in (own, both):
        path.write_bytes(b"?")
    mine.uploads |= {own, both}
    other.uploads |= {both}
    first = mine.new_folder()
    (first / "result.png").write_bytes(b"?")
    second = mine.new_folder()
    assert not first.exists()
    assert second.exists()
    sessions.close("a")
    assert mine.stop.is_set()
    assert not other.stop.is_set()
    assert (mine.folder.exists(), own.exists(), both.exists()) == (False, False, True)
    sessions.close("b")
    sessions.close("b")
    assert not list((tmp_path / "sessions").iterdir())
    assert not both.exists()
