"""`semid-tui --serve`: the terminal UI in a browser, through textual-serve, on loopback, read-only."""

from __future__ import annotations

import importlib.util
import secrets
import shlex
import sys
from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from semid_daemon.base.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp import web

HOST = "127.0.0.1"
_PAGE = Path(__file__).with_name("serve.html")
_TOKEN_BYTES = 24


def served_command(config_path: Path, refresh_s: float) -> str:
    """The command line of the process that serves one visitor."""
    return shlex.join(
        [sys.executable, "-m", "semid_tui", "--readonly", "--refresh", f"{refresh_s:g}", "-c", str(config_path)]
    )


def page(title: str, websocket_url: str) -> str:
    """The page of the terminal. Everything that it loads comes from this server."""
    return (
        _PAGE.read_text(encoding="utf-8")
        .replace("@TITLE@", escape(title))
        .replace("@WEBSOCKET_URL@", escape(websocket_url))
    )


def refusal(host: str | None, origin: str | None, port: int, *, socket: bool) -> str | None:
    """Why a request is refused; None where it is not.

    `host` and `origin` are the headers of the request. A name of another host that resolves to this machine is
    refused, and so is a page of another origin. A browser always sends an origin when it opens a websocket.
    """
    hosts = [f"{name}:{port}" for name in (HOST, "localhost")]
    if host not in hosts:
        return "this server answers to its own address only"
    if origin is None:
        return "a websocket needs an Origin" if socket else None
    return None if origin == f"http://{host}" else "pages of other origins are refused"


def content_policy(port: int) -> str:
    """The Content-Security-Policy of the page: nothing is loaded from other hosts, and no other page frames it."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self';"
        " img-src 'self' data: blob:; worker-src 'self' blob:;"
        f" connect-src ws://{HOST}:{port} ws://localhost:{port};"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def serve_readonly(config_path: Path, port: int, refresh_s: float) -> None:
    """Serve until interrupted. Raises ConfigError where textual-serve is not installed, or the port cannot be had.

    The address that is printed holds a token of this start; without it nothing is served.
    """
    if importlib.util.find_spec("textual_serve") is None:
        raise ConfigError("--serve: needs textual-serve; install it with `pip install 'semid[serve]'`")
    from aiohttp import web
    from textual_serve.server import Server

    token = secrets.token_urlsafe(_TOKEN_BYTES)
    title = f"semid {config_path.parent.name}"

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        is_socket = request.path.endswith("/ws")
        reason = refusal(request.headers.get("Host"), request.headers.get("Origin"), port, socket=is_socket)
        if reason is not None:
            raise web.HTTPForbidden(text=reason)
        if not secrets.compare_digest(request.path.split("/")[1].encode(), token.encode()):
            raise web.HTTPForbidden(text="open the address that semid-tui --serve printed: it holds a token")
        response = await handler(request)
        if not is_socket:
            response.headers["Content-Security-Policy"] = content_policy(port)
            response.headers["Referrer-Policy"] = "no-referrer"
            response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    class ReadonlyServer(Server):
        """One page, its socket and its static files, below the token; no downloads."""

        async def _make_app(self) -> web.Application:
            app = web.Application(middlewares=[guard])
            app.add_routes(
                [
                    web.get(f"/{token}/", self._page),
                    web.get(f"/{token}/ws", self.handle_websocket),
                    web.static(f"/{token}/static", self.statics_path),
                ]
            )
            app.on_startup.append(self.on_startup)
            return app

        async def _page(self, request: web.Request) -> web.Response:
            return web.Response(
                text=page(title, f"ws://{request.headers['Host']}/{token}/ws"), content_type="text/html"
            )

        async def on_startup(self, app: web.Application) -> None:
            print(f"http://{HOST}:{port}/{token}/", flush=True)

    try:
        ReadonlyServer(served_command(config_path, refresh_s), host=HOST, port=port).serve()
    except OSError as error:
        raise ConfigError(f"--serve: {HOST}:{port}: {error.strerror or error}; choose another --port") from error
