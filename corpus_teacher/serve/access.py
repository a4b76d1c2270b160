"""Who may ask, and a line about who asked."""

from __future__ import annotations

import hmac
import logging
import time
from functools import lru_cache
from urllib.parse import urlsplit

from h11 import LocalProtocolError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corpus_teacher.serve.counters import Counters
from corpus_teacher.serve.limits import LOOPBACK, ServeOptions
from corpus_teacher.serve.requests import error_response

_ACCESS = logging.getLogger("corpus_teacher.access")


class AccessGuard:
    """Refuses who doesn't send the token; without a token, on loopback, pages of other sites.

    A browser sends what any page tells it to 127.0.0.1. Such a request names the page's own host, or a host that isn't
    this machine (a name that its owner points here); programs name this machine.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self.app = app
        self.options = options
        self._token = None if options.token is None else options.token.strip().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = self._refusal(request)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await error_response(request, *refusal)(scope, receive, send)

    def _refusal(self, request: Request) -> tuple[str, int] | None:
        if self._token is not None:
            return None if _is_open(request) or self._knows(request) else _UNKNOWN
        if self.options.is_loopback:
            host = _host_name(request.headers.get("host", ""))
            if host not in (*LOOPBACK, self.options.host):
                return f"the host {host!r} isn't this machine, to which the server is bound: bind it to that host", 421
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return f"pages of {origin} may not ask this server", 403
        return None

    def _knows(self, request: Request) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        assert self._token is not None
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)


@lru_cache(256)
def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    return urlsplit(f"//{host}").hostname or ""


_UNKNOWN = ('this server asks for a token: send it as "Authorization: Bearer …"', 401)


def _is_open(request: Request) -> bool:
    """Whether what is asked for holds nothing of an index: the health, the page itself and its parts."""
    path = request.url.path
    closed = ("/v1/", "/api/", "/metrics")
    return request.method in ("GET", "HEAD") and not path.startswith(closed)


class AccessLog:
    """A line and the counters for each request: who, what, the status, bytes and milliseconds."""

    def __init__(self, app: ASGIApp, counters: Counters, logs: bool) -> None:
        self.app = app
        self.counters = counters
        self.logs = logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and listen."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        status, size = 499, 0

        async def heard(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            try:
                await send(message)
            except (
                LocalProtocolError
            ):  # the client broke HTTP within its body: its line is closed, and nobody hears this
                status = 499

        try:
            await self.app(scope, receive, heard)
        finally:
            took_s = time.perf_counter() - begin
            route = getattr(scope.get("route"), "path", "other") if status != 404 else "other"
            self.counters.requests_of(route or "/", str(status)).inc()
            self.counters.seconds_of(route or "/").observe(took_s)
            if self.logs:
                host, port = scope.get("client") or ("?", 0)
                path = scope["path"].encode("unicode_escape").decode()
                _ACCESS.info(
                    "%s:%s %s %s %s %d B %.1f ms", host, port, scope["method"], path, status, size, took_s * 1e3
                )
