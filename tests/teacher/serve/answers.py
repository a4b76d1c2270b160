"""One of every question to a server, asked of an application in this process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp

from corpus_teacher.serve.limits import Limits, ServeOptions
from corpus_teacher.teacher import EVIDENCE
from corpus_teacher.wire import FORMS, unpack_targets

PATIENT = ServeOptions(access_log=False, limits=Limits(request_s=600))
"""Of an application whose first answers wait for a compiler, beside other tests."""

TEXT = "the cat sat on the throne"

COUNTED = [
    {"query_type": "count", "query": "the cat"},
    {"query_type": "count_cnf", "query": "cat AND king OR mat"},
    {"query_type": "find", "query": "cat"},
    {"query_type": "find_cnf", "query": "cat AND mat"},
    {"query_type": "prob", "query": "the c"},
    {"query_type": "ntd", "query": "the "},
    {"query_type": "infgram_prob", "query": "zz the c"},
    {"query_type": "infgram_ntd", "query": "zz the "},
    {"query_type": "get_doc_by_rank", "query": "cat", "s": 0, "rank": 1, "max_disp_len": 20},
    {"query_type": "get_docs_by_ranks", "query": "cat", "list_of_s_and_rank": [[0, 0], [0, 2]]},
    {"query_type": "search_docs", "query": "cat AND mat", "maxnum": 3, "max_disp_len": 30},
]

QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "/": [*COUNTED, {"query_type": "count", "query": ["the", "cat", "king", "qq"]}],
    "/v1/completions": [
        {"prompt": TEXT, "max_tokens": 0, "prompt_logprobs": 3, "leave_out": "self"},
        {"prompt": TEXT, "max_tokens": 12, "temperature": 0.8, "seed": 3, "logprobs": 2, "echo": True},
        {"prompt": TEXT, "max_tokens": 0, "prompt_logprobs": 2, "estimator": "modified-kneser-ney", "max_order": 3},
    ],
    "/v1/targets": [
        {"input_ids": [list(TEXT.encode())], "form": form, "leave_out": "self", "evidence": list(EVIDENCE)}
        for form in ("arrow", "safetensors")
    ],
    "/api/continue": [{"text": "the cat ", "places": 3, "estimator": "witten-bell"}, {"text": "The Cat"}],
    "/api/trace": [{"text": f"{TEXT} and a dog", "min_length": 3}],
    "/api/teach": [{"text": TEXT, "policy": "evidence"}],
    "/api/document": [{"document": 3, "offset": 5, "length": 4}],
    "/api/corpus": [{}],
    "/api/near-duplicates": [{}],
}

_VOLATILE = {
    "latency",
    "id",
    "created",
    "model",
    "seconds",
    "size_bytes",
    "name",
    "fingerprint",
    "index_fingerprint",
    "path",
    "index",
    "query_s",
    "spec",
}


def answers(app: ASGIApp, name: str) -> dict[str, Any]:
    """What an application says of an index to all questions, without what names the index or tells the time."""

    async def all_of_them() -> dict[str, Any]:
        told = {}
        for path, questions in QUESTIONS.items():
            for number, question in enumerate(questions):
                told[f"{path} {number}"] = await _ask(app, path, {_naming(path): name, **question})
        return told

    return asyncio.run(all_of_them())


def _naming(path: str) -> str:
    return "model" if path == "/v1/completions" else "index"


async def _ask(app: ASGIApp, path: str, question: dict[str, Any]) -> Any:
    content = json.dumps(question).encode()
    parts = [{"type": "http.request", "body": content, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop() if parts else await asyncio.Future()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert sent[0]["status"] == 200, (path, question, body)
    if path == "/v1/targets":
        arrays, _ = unpack_targets(body, FORMS[question["form"]])
        return {name: array.tolist() for name, array in arrays.items()}
    return _plain(json.loads(body))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in _VOLATILE}
    return [_plain(one) for one in value] if isinstance(value, list) else value
