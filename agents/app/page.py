"""The page, made of gradio's components."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from agents.app.choices import SCALES
from agents.app.examples import make_examples
from agents.app.handlers import AGENT, HAND, NO_TOOL, Handlers
from agents.app.service import Service
from agents.app.sessions import Sessions
from agents.restoration import CAUTION
from agents.restoration.files import FORMATS

THUMBNAIL = 240
"""Pixels of the longer side of an example's picture."""
KEPT = 3600
"""Seconds after which an upload goes whose page is still open."""

INTRODUCTION = """# ImageRestore
Drop a photograph. An agent looks at it, picks one small tool at a time, and stops when no tool helps. Nothing leaves
the machine that this page runs on, and no file is kept when you close it."""
HINT = "<p class='ir-note ir-hint'>The result appears here.</p>"
STYLE = """
.gradio-container { max-width: 1400px !important; }
.ir-error { border: 1px solid #dc2626; border-left-width: 6px; border-radius: 6px; padding: 12px 16px;
  background: #fef2f2; color: #7f1d1d; overflow-wrap: anywhere; }
.ir-chain { font-size: 1.15rem; margin: 0 0 4px !important; overflow-wrap: anywhere; }
.ir-note { margin: 2px 0 !important; opacity: 0.8; overflow-wrap: anywhere; }
.ir-wide { overflow-x: auto; }
.ir-steps, .ir-scores { border: none !important; border-collapse: collapse; margin: 8px 0 !important;
  font-variant-numeric: tabular-nums; }
.ir-steps tr, .ir-scores tr, .ir-scores td, .ir-scores th { border: none !important; }
.ir-steps td, .ir-steps th { border: none !important; padding: 4px 14px 4px 0 !important; text-align: right !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
.ir-steps td:first-child, .ir-steps th:first-child { text-align: left !important; white-space: nowrap; }
.ir-scores { width: 100%; font-size: 0.9rem; }
.ir-scores td, .ir-scores th { padding: 2px 6px !important; font-weight: normal; text-align: right !important;
  white-space: nowrap; }
.ir-scores th:first-child { text-align: left !important; }
.ir-scores th i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
.ir-scores .ir-bar { width: 45%; }
.ir-bar i { display: block; height: 12px; border-radius: 2px; }
.ir-scores .ir-chosen td, .ir-scores .ir-chosen th { font-weight: 700; }
#examples .caption-label { font-size: 0.7rem; padding: 1px 6px; max-width: 100%; }
#message { min-height: 64px; }
@media (max-width: 640px) {
  .ir-hint { display: none; }
  .ir-steps td, .ir-steps th { padding-right: 8px !important; }
  .ir-steps { font-size: 0.85rem; }
  .ir-scores { font-size: 0.8rem; }
  .ir-scores .ir-bar { width: 30%; }
}
"""
SCROLL = """() => {
  if (window.innerWidth < 800) document.querySelector("#outcome").scrollIntoView({ behavior: "smooth" });
}"""
"""Where the columns stand below one another: to the result."""


def theme() -> Any:
    """Gradio's default theme with fonts of the visitor's machine: nothing is loaded from elsewhere."""
    return gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def build_page(service: Service, folder: Path) -> gr.Blocks:
    """Build the page.

    Args:
        service: restores the photographs.
        folder: for files, gradio's own temporary one.
    """
    examples = make_examples(folder / "examples")
    handlers = Handlers(service, Sessions(folder / "sessions"), examples)
    with gr.Blocks(title="ImageRestore", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = gr.File(label="Photograph", elem_id="photo", height=150)
                with gr.Row():
                    start = gr.Button("Restore", variant="primary", elem_id="restore", min_width=120)
                    stop = gr.Button("Stop", elem_id="stop", min_width=80)
                gr.Markdown("Or choose an example:")
                gallery = gr.Gallery(
                    [(_thumbnail(example.path), example.row.caption) for example in examples],
                    show_label=False,
                    columns=3,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    buttons=[],
                    elem_id="examples",
                )
                controls = _controls(service)
            with gr.Column(scale=5, min_width=320, elem_id="outcome"):
                message = gr.HTML(HINT, elem_id="message", padding=False)
                with gr.Column(visible=False, elem_id="results") as results:
                    download = gr.DownloadButton("Download", variant="primary", elem_id="download")
                    view = gr.Radio([], label="Shown", elem_id="view")
                    slider = gr.ImageSlider(
                        label="Before and after", interactive=False, max_height=640, elem_id="slider", type="filepath"
                    )
                    with gr.Row(equal_height=False):
                        with gr.Column(min_width=300):
                            votes = gr.Image(
                                label="What each tile chose",
                                interactive=False,
                                buttons=["fullscreen"],
                                type="filepath",
                                elem_id="votes",
                            )
                        with gr.Column(min_width=300):
                            scores = gr.HTML(elem_id="scores", padding=False)
                    command = gr.Code(
                        label="The same on the command line",
                        language="shell",
                        lines=1,
                        wrap_lines=True,
                        elem_id="command",
                    )
        shown = [slider, votes, scores]
        outputs = [message, results, download, view, *shown, command]
        chosen = gr.State(None)
        inputs = [photo, chosen, *controls]
        work: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "restore", "api_visibility": "private"}
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        noted = photo.upload(handlers.upload, [photo, chosen], [chosen, controls.scale], **quick)
        taken = gallery.select(handlers.choose, None, [photo, chosen, controls.scale], **quick)
        for restore in (start.click, noted.then, taken.then):
            done = restore(handlers.restore, inputs, outputs, show_progress_on=[message], **work)
            done.then(None, js=SCROLL, **quick)
        for event in (start.click, photo.upload, gallery.select):
            event(None, js=SCROLL, **quick)
        photo.clear(handlers.clear, None, [message, results], **quick)
        stop.click(handlers.stop, None, None, **quick)
        view.input(handlers.show, view, shown, **quick)
        page.unload(handlers.leave)
    return page


class _Controls(NamedTuple):
    """The controls in the order of :meth:`agents.app.handlers.Handlers.restore`'s arguments."""

    strength: Any
    caution: Any
    scale: Any
    chain: Any
    first: Any
    second: Any
    third: Any
    regions: Any
    file_format: Any
    clean: Any


def _controls(service: Service) -> _Controls:
    with gr.Accordion("Options", open=False, elem_id="options"):
        strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="the share of the change that is applied")
        caution = gr.Slider(
            0,
            2,
            CAUTION,
            step=0.05,
            label="Caution, dB",
            info="a tool is applied only if it is expected to gain so much",
        )
        scale = gr.Radio(list(SCALES), value=1, label="Scale", info="times as high and wide")
        who = gr.Radio([AGENT, HAND], value=AGENT, label="Chain")
        with gr.Column(visible=False) as hand:
            first, second, third = (
                gr.Dropdown([NO_TOOL, *service.tools], value=NO_TOOL, label=f"Tool {number}") for number in (1, 2, 3)
            )
        who.input(
            lambda value: gr.Column(visible=value == HAND),
            who,
            hand,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        regions = gr.Checkbox(label="A chain for every region (scale 1)")
        file_format = gr.Radio(list(FORMATS), value="png", label="Format", info="of the download")
        clean = gr.File(label="A clean version, to measure the gain", height=150, elem_id="clean")
    return _Controls(strength, caution, scale, who, first, second, third, regions, file_format, clean)


def _thumbnail(path: Path) -> str:
    """Write a small picture beside an example, and return its path."""
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    small = path.with_suffix(".thumbnail.jpg")
    picture.save(small, quality=88)
    return str(small)
