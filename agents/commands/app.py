"""``imagerestore app``: a page in the browser that restores photographs and shows how."""

from __future__ import annotations

import argparse
import socket
from typing import Any

from agents.command_line import positive_float, positive_int
from agents.commands.restore import add_restorer, open_restorer

HOST = "127.0.0.1"
SHOWN = {"toolbox": "default", "policy": None, "max_steps": 3, "super_resolver": None, "device": "cpu"}
SHOWN |= {"backend": "torch"}
"""Options that the commands on the page repeat, with their defaults."""


def register(commands: Any) -> None:
    """Add ``app``."""
    parser = commands.add_parser(
        "app",
        help="a page in the browser: drop a photograph, see the chain",
        description="Serves a page that restores photographs and shows how: the picture before and after each tool,"
        " what the agent expected, and what each tile chose. Works offline; no file is kept. Ctrl+C stops it.",
    )
    page = parser.add_argument_group("page")
    page.add_argument("--host", default=HOST, help="address to listen on (default %(default)s: this machine alone)")
    page.add_argument("--port", type=positive_int, help="port to listen on (default: the first free one from 7860)")
    page.add_argument("--max-upload", type=positive_int, default=100, metavar="MB", help="largest file (default 100)")
    page.add_argument(
        "--max-megapixels", type=positive_float, default=50.0, metavar="N", help="largest result (default 50)"
    )
    add_restorer(parser)
    parser.set_defaults(run=app, scale=None)


def app(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore app`` until it is interrupted."""
    from restore_env.extras import require_extra

    require_extra("app", "imagerestore app")
    check_free(arguments.host, arguments.port)  # before slow imports
    from agents.app.server import serve
    from agents.app.service import Service

    given = {f"--{name.replace('_', '-')}": getattr(arguments, name) for name in SHOWN}
    defaults = dict(zip(given, SHOWN.values(), strict=True))
    options = {option: str(value) for option, value in given.items() if value != defaults[option]}
    service = Service(open_restorer(arguments), megapixels=arguments.max_megapixels, options=options)
    serve(service, arguments.host, arguments.port, max_upload=arguments.max_upload)
    return 0


def check_free(host: str, port: int | None) -> None:
    """Raise ``ValueError`` if nothing can listen there; ``port``: None for any."""
    try:
        family = socket.getaddrinfo(host, None)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port or 0))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        where = host if port is None else f"{host}, port {port}"
        raise ValueError(f"cannot listen at {where}: {reason}; --host and --port name another place") from None
