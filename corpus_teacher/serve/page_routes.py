"""JSON for the page: routes under /api, each a plain function of an open index and the request's fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from corpus_teacher.serve import page_answers
from corpus_teacher.serve.indexes import ServedIndex
from corpus_teacher.serve.requests import Json, json_of, state_of

Answer = Callable[[ServedIndex, Mapping[str, Any]], Any]
"""An index and the fields of a request → what JSON can hold; called in a worker thread."""


def routes() -> list[BaseRoute]:
    """All routes of the page."""
    asked: dict[str, Answer] = {
        "continue": page_answers.continue_text,
        "trace": page_answers.trace_text,
        "teach": page_answers.teach_text,
        "document": page_answers.show_document,
        "corpus": page_answers.describe_corpus,
        "near-duplicates": page_answers.near_duplicates,
    }
    made: list[BaseRoute] = [Route("/api/indexes", _indexes, methods=["GET"])]
    return [
        *made,
        *(Route(f"/api/{name}", answered(answer, _cost), methods=["GET", "POST"]) for name, answer in asked.items()),
    ]


def _cost(fields: Mapping[str, Any]) -> int:
    """What a request costs: a position for every four characters of its text."""
    text = fields.get("text")
    return 1 + (len(text) // 4 if isinstance(text, str) else 0)


def answered(answer: Answer, positions: Callable[[Mapping[str, Any]], int] | None = None) -> Any:
    """An endpoint of a function.

    Parameters
    ----------
    answer : callable
        Of an index and the request's fields; what it raises on purpose becomes a 4xx with its sentence. The fields are
        those of the query (GET, texts) or of a JSON object (POST); "index" names the index, and may be left out where
        there is only one.
    positions : callable, optional
        What a request costs, in positions; refused above the limit.
    """

    async def endpoint(request: Request) -> Response:
        state = state_of(request)
        fields: Mapping[str, Any] = dict(request.query_params) if request.method == "GET" else await json_of(request)
        served = state.served.named(fields.get("index"))
        cost = 1 if positions is None else positions(fields)
        return Json(await state.joiner.run(answer, served, fields, positions=cost))

    made: Callable[[Request], Awaitable[Response]] = endpoint
    return made


async def _indexes(request: Request) -> Response:
    """All indexes, for the page's menu."""
    state = state_of(request)
    return Json({"indexes": [one.describe() for one in state.served.values()]})
