"""Serves the page: offline, with a temporary folder of its own that goes at the end."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.app.service import Service

OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
WAITING = 20
"""Photographs that may wait; a visitor who comes then is asked to try again."""


@contextmanager
def running(service: Service, host: str, port: int | None, *, max_upload: int) -> Iterator[str]:
    """Serve the page in other threads until the context ends; yield its address.

    Args:
        service: restores the photographs.
        host: address to listen on.
        port: port to listen on; None: the first free one from 7860.
        max_upload: largest file, 10^6 bytes.

    Raises:
        ValueError: the page cannot be served there.
    """
    with tempfile.TemporaryDirectory(prefix="imagerestore-app-", ignore_cleanup_errors=True) as folder:
        os.environ |= OFFLINE | {"GRADIO_TEMP_DIR": str(Path(folder).resolve())}  # read when gradio is imported
        from agents.app.page import STYLE, build_page, theme

        page = build_page(service, Path(os.environ["GRADIO_TEMP_DIR"]))
        settings: dict[str, Any] = {
            "theme": theme(),
            "css": STYLE,
            "share": False,
            "ssr_mode": False,
            "pwa": False,
            "mcp_server": False,
            "enable_monitoring": False,
            "run_history": False,  # it would keep inputs in the browser
            "footer_links": [],
            "inbrowser": False,
            "quiet": True,
        }
        try:
            page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=max_upload * 10**6,
                prevent_thread_lock=True,
                **settings,
            )
        except OSError as error:
            raise ValueError(f"cannot listen at {host}: {' '.join(str(error).split())}") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(service: Service, host: str, port: int | None, *, max_upload: int) -> None:
    """Serve the page until Ctrl+C or the signal to terminate; what :func:`running` takes."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with running(service, host, port, max_upload=max_upload) as address:
        if not _is_loopback(host):
            print("imagerestore: everyone who reaches this machine can use the page", file=sys.stderr)
        print(f"ImageRestore is at {address} (Ctrl+C stops it)", flush=True)
        ended.wait()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
