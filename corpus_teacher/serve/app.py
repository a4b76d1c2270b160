"""The application: who may ask, what is asked, and what becomes of errors.

Every route is a function of the request; what it asks of an index goes through the `Joiner`. Errors that the project
raises on purpose end as 4xx with their sentence; anything else is a bug and ends as 500, with a traceback in the log.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from corpus_teacher import __version__
from corpus_teacher.errors import CorpusIndexError
from corpus_teacher.serve import openapi, page_routes
from corpus_teacher.serve.access import AccessGuard, AccessLog
from corpus_teacher.serve.completions import completions
from corpus_teacher.serve.counters import Counters
from corpus_teacher.serve.indexes import Served
from corpus_teacher.serve.infini_gram import infini_gram
from corpus_teacher.serve.joining import Joiner
from corpus_teacher.serve.limits import RefusedRequest, ServeOptions
from corpus_teacher.serve.requests import Json, State, error_response, state_of
from corpus_teacher.serve.target_batches import targets

_LOG = logging.getLogger("corpus_teacher.serve")


def create_app(served: Served, options: ServeOptions | None = None) -> Starlette:
    """An ASGI application over open indexes.

    Parameters
    ----------
    served : Served
        As `open_indexes` makes it; closed with the application.
    options : ServeOptions, optional

    Returns
    -------
    Starlette
        Its `state.shared` is the `State` that all routes share.
    """
    options = options or ServeOptions()
    counters = Counters()
    joiner = Joiner(options.threads or os.cpu_count() or 1, options.limits, counters)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        joiner.close()
        served.close()

    app = Starlette(
        routes=_routes(),
        lifespan=lifespan,
        middleware=[
            Middleware(AccessLog, counters=counters, logs=options.access_log),
            Middleware(AccessGuard, options=options),
        ],
        exception_handlers={
            RefusedRequest: _refused,
            CorpusIndexError: _sentence,
            404: _not_there,
            405: _not_there,
            Exception: _bug,
        },
    )
    app.state.shared = State(served, options, counters, joiner)
    return app


def _routes() -> list[BaseRoute]:
    static = resources.files("corpus_teacher.serve") / "static"
    return [
        Route("/", infini_gram, methods=["POST"]),  # the smallest answers come first
        Route("/health", _health, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
        Route("/openapi.json", openapi.document, methods=["GET"]),
        Route("/docs", openapi.page, methods=["GET"]),
        Route("/v1/models", _models, methods=["GET"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/targets", targets, methods=["POST"]),
        *page_routes.routes(),
        Mount("/", StaticFiles(directory=str(static), html=True)),
    ]


async def _health(request: Request) -> Response:
    """Up, and what waits; open to everybody."""
    state = state_of(request)
    return Json({"status": "ok", "version": __version__, "indexes": len(state.served), "waiting": state.joiner.waiting})


async def _metrics(request: Request) -> Response:
    state = state_of(request)
    state.counters.waiting.set(state.joiner.waiting)
    return Response(state.counters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _models(request: Request) -> Response:
    """The indexes, as vLLM lists its models."""
    state = state_of(request)
    models: list[dict[str, Any]] = [
        {
            "id": one.name,
            "object": "model",
            "created": 0,
            "owned_by": "corpus-teacher",
            "root": one.name,
            "max_model_len": state.options.limits.positions,
            "index": one.describe(),
        }
        for one in state.served.values()
    ]
    return Json({"object": "list", "data": models})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequest)
    return error_response(request, str(error), error.status, error.retry_after_s)


async def _sentence(request: Request, error: Exception) -> Response:
    return error_response(request, " ".join(str(error).split()), 400)


async def _not_there(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    what = "there is nothing at" if status == 404 else f"{request.method} isn't answered at"
    return error_response(request, f"{what} {request.url.path}: /docs lists the routes", status)


async def _bug(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s", request.method, request.url.path, exc_info=error)
    return error_response(request, "the server failed at this request: its log says where", 500)
