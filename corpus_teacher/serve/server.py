"""Opening, warming, listening, and stopping without cutting anybody off."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn

from corpus_teacher.errors import OutputError
from corpus_teacher.serve import heads
from corpus_teacher.serve.app import create_app
from corpus_teacher.serve.indexes import open_indexes
from corpus_teacher.serve.limits import ServeOptions

_GRACE_S = 10
_SWITCH_S = 0.001  # in which a thread that runs Python lets the event loop, or another thread, go on
_CONNECTIONS = 1024  # at once; whoever comes then gets 503


class _Server(uvicorn.Server):
    """uvicorn's server, whose graceful stop is the end of it and no signal to anybody else."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._captured_signals.clear()


def serve(
    places: Sequence[str | Path],
    options: ServeOptions | None = None,
    *,
    tokenizer: str | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve indexes until SIGINT or SIGTERM.

    Parameters
    ----------
    places : sequence of str or path
        As in `open_indexes`.
    options : ServeOptions, optional
    tokenizer : str, optional
        For indexes that were built without one.
    ready : callable, optional
        Called with the server's address once it answers.

    Raises
    ------
    ConfigError, IndexFormatError, TokenizerError
    OutputError
        An address that can't be listened on.
    """
    options = options or ServeOptions()
    listener = _listener(options)
    with listener:
        served = open_indexes(places, options, tokenizer)
        for one in served.values():
            one.warm()
        if options.access_log:
            _log_to_stderr()
        app = create_app(served, options)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
            lifespan="on",
            http=heads.protocol(),
            limit_concurrency=_CONNECTIONS,
            server_header=False,
        )
        host, port = listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        with _quick_threads():
            _Server(config, lambda: ready(f"http://{name}:{port}") if ready else None).run(sockets=[listener])


@contextlib.contextmanager
def _quick_threads() -> Iterator[None]:
    """No pauses by what runs beside a request: threads hand over soon, and what is there already isn't searched for
    garbage (a tenth of a second with torch's modules)."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)


def _listener(options: ServeOptions) -> socket.socket:
    """The bound socket: refused at once, before an index is opened; it listens when the kernels are warm."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # named as TCP, or asyncio doesn't switch Nagle's algorithm off, and every answer waits 40 ms for an acknowledgement
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((options.host, options.port))
    except OSError as error:
        made.close()
        raise OutputError(
            f"{options.host}:{options.port} can't be listened on ({error.strerror or error}): give another host or port"
        ) from error
    return made


def _log_to_stderr() -> None:
    """The access log as lines on stderr, unless somebody set it up already."""
    log = logging.getLogger("corpus_teacher.access")
    log.setLevel(logging.INFO)
    if not log.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.propagate = False
