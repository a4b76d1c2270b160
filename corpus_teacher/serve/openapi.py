"""The routes as OpenAPI, and a page that shows them without the internet."""

from __future__ import annotations

from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from corpus_teacher import __version__
from corpus_teacher.serve.requests import Json
from corpus_teacher.wire import ARROW, SAFETENSORS

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_IDS: Schema = {"type": "array", "items": _WHOLE}
_ROWS: Schema = {"type": "array", "items": _IDS}


def _about(schema: Schema, words: str, **more: Any) -> Schema:
    return {**schema, "description": words, **more}


_SETTINGS: dict[str, Schema] = {
    "estimator": _about(_TEXT, "The name of an estimator; the server's own by default."),
    "max_order": _about({"type": ["integer", "null"]}, "The longest context in tokens; null: no bound."),
    "leave_out": _about(
        {"type": ["string", "null"], "enum": ["auto", "self", "document", None]},
        "Of texts that are in the index; the server's own by default.",
    ),
}

_COMPLETION: dict[str, Schema] = {
    "model": _about(_TEXT, "The name of an index; may be left out where there is only one."),
    "prompt": _about({"oneOf": [_TEXT, {"type": "array", "items": _TEXT}, _IDS, _ROWS]}, "Texts or token ids."),
    "max_tokens": _about(_WHOLE, "Tokens to generate; 0: none.", default=16),
    "prompt_logprobs": _about(_WHOLE, "How many of the likeliest tokens at each token of the prompt; -1: all."),
    "logprobs": _about(_WHOLE, "How many at each generated token, and with echo at each token of the prompt."),
    "temperature": _about(_NUMBER, "Counts for log-probabilities too, except 0.", default=1.0),
    "top_p": _NUMBER,
    "top_k": _WHOLE,
    "seed": _WHOLE,
    "n": _about(_WHOLE, "Continuations of each prompt.", default=1),
    "echo": _FLAG,
    "stop": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT}]},
    "stream": _about(_FLAG, "Server-sent events, one for each token, then [DONE]."),
    "stream_options": {"type": "object", "properties": {"include_usage": _FLAG}},
    "starts_document": _about(_FLAG, "Whether prompts begin where documents begin.", default=False),
    "return_token_ids": _FLAG,
    "return_tokens_as_token_ids": _FLAG,
    **_SETTINGS,
}

_TARGETS: dict[str, Schema] = {
    "input_ids": _about(_ROWS, "Token ids, (B, T); rows of JSON may differ in length; negative ids are padding."),
    "next_ids": _about(_ROWS, "The token that truly follows each; negative where unknown."),
    "starts_document": _about({"oneOf": [_FLAG, {"type": "array"}]}, "Of rows, segments or tokens."),
    "positions": _about({"type": "array"}, "Where in the corpus rows, segments or tokens stand."),
    **{name: _about(_ROWS, "As a teacher reads it.") for name in ("attention_mask", "position_ids", "document_ids")},
    "cu_seq_lens": _IDS,
    "end_token": _WHOLE,
    "index": _about(_TEXT, "The name of an index."),
    "top_k": _about(_WHOLE, "Explicit tokens a position."),
    "top_p": _NUMBER,
    "form": _about({"type": "string", "enum": ["arrow", "safetensors"]}, "Of the answer."),
    "base": _about(_FLAG, "Whether the base distribution travels too.", default=True),
    "evidence": _about({"type": "array", "items": _TEXT}, 'What else: ["distinct"].'),
    **_SETTINGS,
}

_INFINI_GRAM: dict[str, Schema] = {
    "index": _about(_TEXT, "The name of an index."),
    "query_type": _about(
        {
            "type": "string",
            "enum": [
                *("count", "count_cnf", "find", "find_cnf", "prob", "ntd", "infgram_prob", "infgram_ntd"),
                *("get_doc_by_rank", "get_docs_by_ranks", "get_doc_by_ptr", "search_docs"),
            ],
        },
        "What is asked.",
    ),
    "query": _about(
        {"oneOf": [_TEXT, {"type": "array", "items": _TEXT}]}, "A text, or a batch; AND and OR make a CNF."
    ),
    "query_ids": _about(
        {"type": "array"}, "Token ids: a list, a list of lists (a batch), or a CNF, nested three deep."
    ),
    "max_diff_tokens": _about(_WHOLE, "How far apart terms of a CNF may stand.", default=100),
    "max_support": _about(_WHOLE, "Taken and not needed: nothing is sampled."),
    "max_clause_freq": _about(_WHOLE, "Taken and not needed: nothing is sampled."),
    "s": _about(_WHOLE, "Which segment of find."),
    "rank": _WHOLE,
    "ptr": _WHOLE,
    "list_of_s_and_rank": {"type": "array", "items": _IDS},
    "max_disp_len": _about(_WHOLE, "Tokens of a document that are shown.", default=1000),
    "maxnum": _about(_WHOLE, "Documents of a search.", default=1),
    "seed": _about(_WHOLE, "The same one finds the same documents."),
}


def _operation(summary: str, answer: str, fields: dict[str, Schema] | None = None, **more: Any) -> Schema:
    failures = {str(status): {"description": words} for status, words in _FAILURES.items()}
    made: Schema = {"summary": summary, "responses": {"200": {"description": answer}, **failures}, **more}
    if fields is not None:
        schema = {"type": "object", "properties": fields}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return made


_FAILURES = {
    400: "Something is wrong with the request; `error` says what.",
    401: "The token is missing or another one.",
    413: "More than a request may ask for.",
    429: "Too much waits already: come back after Retry-After seconds.",
    503: "No answer in time: come back after Retry-After seconds.",
}


def describe() -> Schema:
    """The OpenAPI document."""
    targets = _operation("Targets of a batch", "Flat targets, as Arrow's IPC stream or safetensors.", _TARGETS)
    binary = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (ARROW, SAFETENSORS)}
    targets["requestBody"]["content"] |= binary
    targets["responses"]["200"]["content"] = binary
    return {
        "openapi": "3.1.0",
        "info": {"title": "corpus-teacher", "version": __version__},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/": {"post": _operation("infini-gram's queries, exact", "The answer, or a list of them.", _INFINI_GRAM)},
            "/v1/models": {"get": _operation("The indexes", "As vLLM lists models.")},
            "/v1/completions": {
                "post": _operation("vLLM's completions", "Choices, with log-probabilities.", _COMPLETION)
            },
            "/v1/targets": {"post": targets},
            "/api/indexes": {"get": _operation("The indexes, for the page", "A list.")},
            "/health": {"get": _operation("Whether the server is up", "It is.")},
            "/metrics": {"get": _operation("Counters for Prometheus", "Its text format.")},
            "/openapi.json": {"get": _operation("This", "This.")},
        },
    }


async def document(request: Request) -> Response:
    """The OpenAPI document."""
    del request
    return Json(describe())


async def page(request: Request) -> Response:
    """The page that shows it; all it needs is this server."""
    del request
    return FileResponse(str(resources.files("corpus_teacher.serve") / "static" / "docs.html"), media_type="text/html")
