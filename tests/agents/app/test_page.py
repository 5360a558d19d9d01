"""The page in a real browser: needs gradio, playwright and Debian's chromium (``.ci/app`` installs them)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import write_model
from tests.support.image_files import encode, exif_of, picture

pytest.importorskip("gradio", reason="the page needs gradio: pip install imagerestore[app]")
playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium: install it, or name it in CHROMIUM", allow_module_level=True)

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 120_000
"""Milliseconds that the page may take; a busy machine is slow."""
ROOT = Path(__file__).resolve().parents[3]


class Server:
    """``imagerestore app`` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "agents.cli", "app", *options]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        if found is None:
            self.process.kill()
            raise RuntimeError(f"no address in {line!r}: {self.process.communicate()[1]}")
        self.address = found.group()

    def files(self) -> list[str]:
        """Names of the visitors' files that the server holds: uploads and results, not its examples nor empty files."""
        paths = (path for path in self.temporary.rglob("*") if path.is_file() and path.stat().st_size)
        return sorted(path.name for path in paths if path.parent.name != "examples")


@pytest.fixture(scope="module")
def model_options(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_options: tuple[str, ...]) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"), "--max-upload", "1", *model_options)
    yield started
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(60) == 0
    assert started.process.stderr is not None
    assert started.process.stderr.read() == ""
    assert not list(started.temporary.iterdir())
    assert started.process.stdout is not None
    started.process.stdout.close()
    started.process.stderr.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Visitor:
    """A visitor with a browser profile of their own, who notes every address that the page asks for."""

    def __init__(self, browser: Any, address: str, width: int = 1280) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("#restore")

    def upload(self, path: Path) -> None:
        self.page.locator("#photo input[type=file]").set_input_files(str(path))

    def wait_for_result(self, name: str) -> None:
        self.page.wait_for_function(
            "name => document.querySelector('.ir-chain b')?.innerText === name"
            " && document.querySelector('#results')?.checkVisibility()",
            arg=name,
        )

    def download(self) -> tuple[str, bytes]:
        with self.page.expect_download() as started:
            self.page.locator("#download").click()
        return started.value.suggested_filename, Path(started.value.path()).read_bytes()

    def error(self) -> str:
        return str(self.page.locator(".ir-error").inner_text())


@pytest.fixture
def visitor(browser: Any, server: Server) -> Iterator[Visitor]:
    visitor = Visitor(browser, server.address)
    yield visitor
    visitor.context.close()


def photo(folder: Path, name: str, height: int, width: int) -> Path:
    path = folder / name
    path.write_bytes(encode(picture(height, width), "JPEG", exif=exif_of(6), comment=b"by the sea", dpi=(300, 300)))
    return path


def by_command(path: Path, *options: str) -> tuple[str, bytes]:
    """Name and bytes of what ``imagerestore restore`` writes."""
    before = set(path.parent.iterdir())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "agents.cli", "restore", path.name, *options]
    subprocess.run(command, cwd=path.parent, env=environment, check=True, capture_output=True)
    (written,) = set(path.parent.iterdir()) - before
    return written.name, written.read_bytes()


def test_the_download_is_the_commands_file(
    visitor: Visitor, server: Server, tmp_path: Path, model_options: tuple[str, ...]
) -> None:
    source = photo(tmp_path, "by the sea.jpg", 80, 120)
    visitor.upload(source)
    visitor.wait_for_result(source.name)
    assert visitor.download() == by_command(source, *model_options)

    visitor.page.locator("#options button").first.click()
    visitor.page.locator("#options").get_by_label("jpg", exact=True).click()
    visitor.page.get_by_label("number input for Strength").fill("0.5")
    visitor.page.keyboard.press("Tab")
    visitor.page.locator("#restore").click()
    visitor.page.wait_for_function("document.querySelector('#download').innerText.includes('.jpg')")
    options = ("--strength", "0.5", "--format", "jpg", *model_options)
    assert visitor.download() == by_command(source, *options)
    assert "--strength 0.5 --format jpg" in visitor.page.locator("#command").inner_text().replace("\n", "")

    assert source.name in server.files()
    visitor.page.goto("about:blank")  # leaves
    deadline = time.monotonic() + 60
    while server.files() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert server.files() == []


def test_each_step_can_be_seen_and_nothing_is_asked_of_others(visitor: Visitor) -> None:
    visitor.page.locator("#examples button:has(img)").first.click()
    visitor.wait_for_result("coffee.png")
    steps = visitor.page.locator("#view label")
    assert steps.first.inner_text() == "whole chain"
    assert not visitor.page.locator("#votes").is_visible()
    pictures = visitor.page.locator("#slider img")
    playwright.expect(pictures).to_have_count(2)
    whole = pictures.first.get_attribute("src"), pictures.last.get_attribute("src")
    steps.nth(1).click()
    visitor.page.wait_for_selector("#votes img")
    first = pictures.first.get_attribute("src"), pictures.last.get_attribute("src")
    assert len({*whole, *first}) == 3
    for name in (*first, visitor.page.locator("#votes img").get_attribute("src")):
        assert visitor.page.request.get(name).ok
    assert "stop" in visitor.page.locator("#scores").inner_text()
    came = visitor.page.locator(".ir-steps tbody tr").first.locator("td").nth(2).inner_text()
    assert re.fullmatch(r"[+-]\d+\.\d\d", came)
    hosts = {url.split("/")[2] for url in visitor.asked if url.startswith("http")}
    assert all(host.startswith("127.0.0.1:") for host in hosts), hosts
    fonts = visitor.page.evaluate("[...document.fonts].map(font => font.family)")
    assert fonts == []


def test_a_broken_file_is_told_in_plain_words(visitor: Visitor, tmp_path: Path) -> None:
    good = photo(tmp_path, "good.jpg", 70, 70)
    broken = tmp_path / "broken.png"
    broken.write_bytes(encode(picture(70, 90))[:300])
    visitor.upload(good)
    visitor.wait_for_result(good.name)
    visitor.page.locator("#photo").get_by_label("Clear").click()
    playwright.expect(visitor.page.locator("#results")).not_to_be_visible()
    visitor.upload(broken)
    visitor.page.wait_for_selector(".ir-error")
    assert visitor.error().startswith("broken.png: damaged")
    playwright.expect(visitor.page.locator("#results")).not_to_be_visible()


def test_a_file_that_is_too_large_is_refused(visitor: Visitor, server: Server, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    large = tmp_path / "large.png"
    Image.fromarray(noise).save(large)
    assert large.stat().st_size > 1_000_000
    visitor.upload(large)
    visitor.page.wait_for_selector("text=/maximum|too large|exceed/i")
    assert "large.png" not in server.files()
    playwright.expect(visitor.page.locator("#results")).not_to_be_visible()


def test_two_visitors_at_once_get_their_own(
    browser: Any, server: Server, tmp_path: Path, model_options: tuple[str, ...]
) -> None:
    photos = [photo(tmp_path, "one.jpg", 90, 130), photo(tmp_path, "two.jpg", 120, 100)]
    visitors = [Visitor(browser, server.address, width) for width in (1280, 390)]
    for visitor, source in zip(visitors, photos, strict=True):
        visitor.upload(source)
    for visitor, source in zip(visitors, photos, strict=True):
        visitor.wait_for_result(source.name)
    for visitor, source in zip(visitors, photos, strict=True):
        assert visitor.download() == by_command(source, *model_options)
        assert visitor.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        visitor.context.close()
