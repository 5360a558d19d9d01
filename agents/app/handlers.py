"""What the page does at each event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from agents.app.choices import Choices
from agents.app.examples import Example
from agents.app.service import Refused, Service, Stopped
from agents.app.sessions import Session, Sessions
from agents.app.tables import error_text, outcome_text
from agents.app.views import View, make_views
from restore_env.images.decoding import ImageError, decode_image

AGENT, HAND = "chosen by the agent", "by hand"
NO_TOOL = "none"
REFRESH = 0.2
"""Seconds between two reports of progress."""
Updates = tuple[Any, ...]


class Handlers:
    """The handlers of the page's events.

    Args:
        service: restores the photographs.
        sessions: of the visitors.
        examples: in the order in which they are shown.
    """

    def __init__(self, service: Service, sessions: Sessions, examples: Sequence[Example]) -> None:
        self._service, self._sessions, self._examples = service, sessions, examples

    def upload(self, file: str, chosen: int | None, request: gr.Request) -> Updates:
        """Note the visitor's file, to remove it when the visitor leaves; no example is chosen now, nor its scale."""
        self._sessions.get(_key(request)).uploads.add(Path(file))
        return None, gr.skip() if chosen is None else 1

    def choose(self, event: gr.SelectData) -> Updates:
        """Choose an example: its file, its number and its scale."""
        example = self._examples[int(event.index)]
        return str(example.path), int(event.index), example.row.scale

    def restore(
        self,
        file: str | None,
        chosen: int | None,
        strength: float,
        caution: float,
        scale: int,
        chain: str,
        first: str,
        second: str,
        third: str,
        regions: bool,
        file_format: str,
        clean: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # gradio's way to ask for one
    ) -> Updates:
        """Restore the photograph and show the result; an error in its place."""
        if file is None:
            return _failed("Choose a photograph first, or an example.")
        session = self._sessions.get(_key(request))
        session.stop.clear()
        tools = tuple(name for name in (first, second, third) if name != NO_TOOL) if chain == HAND else None
        if tools == ():
            return _failed("Choose a tool for the chain by hand, under Options.")
        choices = Choices(strength, caution, int(scale), tools, file_format, regions)
        folder = session.new_folder()
        try:
            target = self._target(chosen, int(scale), clean)
            outcome = self._service.restore(Path(file), folder, choices, target, _reporter(session, progress))
            session.views = make_views(outcome, self._service.restorer, folder)
        except Refused as refused:
            return _failed(str(refused))
        except FileNotFoundError:  # the visitor has left
            return _failed("This page was closed.")
        titles = [view.title for view in session.views]
        return (
            outcome_text(Path(file).name, outcome.result, choices, outcome.notes),
            gr.Column(visible=True),
            gr.DownloadButton(f"Download {outcome.path.name}", value=str(outcome.path)),
            gr.Radio(titles, value=titles[0]),
            *_shown(session.views[0]),
            outcome.command,
        )

    def show(self, title: str, request: gr.Request) -> Updates:
        """Show another step."""
        views = self._sessions.get(_key(request)).views
        view = next((view for view in views if view.title == title), None)
        return _shown(view) if view is not None else (gr.skip(), gr.skip(), gr.skip())

    def clear(self) -> Updates:
        """Hide the result of a photograph that was taken away."""
        return "", gr.Column(visible=False)

    def stop(self, request: gr.Request) -> None:
        """End the visitor's work."""
        self._sessions.get(_key(request)).stop.set()

    def leave(self, request: gr.Request) -> None:
        """Remove what is kept of a visitor who has left."""
        self._sessions.close(_key(request))

    def _target(self, chosen: int | None, scale: int, clean: str | None) -> Any:
        """The ground truth: the visitor's, or that of an example, if it is of the size of the result."""
        if clean is not None:
            path = Path(clean)
            try:
                return decode_image(path.read_bytes(), f"the clean version {path.name}", strict=False)
            except (ImageError, OSError) as error:
                raise Refused(str(error)) from None
        example = None if chosen is None else self._examples[chosen]
        return None if example is None or example.row.scale != scale else example.clean


def _key(request: gr.Request) -> str:
    return str(request.session_hash)


def _reporter(session: Session, progress: Any) -> Callable[[str, float], None]:
    """Shows progress, and ends the work if the visitor wishes so or has left."""
    last = -np.inf

    def report(what: str, share: float) -> None:
        nonlocal last
        if session.stop.is_set():
            raise Stopped("Stopped.")
        if time.monotonic() - last > REFRESH:
            last = time.monotonic()
            progress(share, desc=what)

    return report


def _failed(message: str) -> Updates:
    """An error, and no result."""
    return error_text(message), gr.Column(visible=False), *(gr.skip() for _ in range(6))


def _shown(view: View) -> Updates:
    """Values of the slider, the picture of the tiles and the scores."""
    votes = gr.Image(value=None if view.votes is None else str(view.votes), visible=view.votes is not None)
    return (str(view.before), str(view.after)), votes, gr.HTML(view.scores, visible=bool(view.scores))
