"""Hostile requests to the server, asked in process, and hostile answers to its client."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.trust.inputs import Input
from corpus_teacher.data import BuildOptions, build_index_from_sources
from corpus_teacher.errors import InputError
from corpus_teacher.remote import RemoteTeacher
from corpus_teacher.wire import ARROW, SAFETENSORS, pack_batch, pack_targets, unpack_batch, unpack_targets

_TEXTS = ["the cat sat on the mat and the dog sat on the log", "the king had a cat and the cat had a mat", "a dog ran"]
_IDS = [[1, 2, 3, 4], [5, 6, 7, 8]]
_POSTS: dict[str, list[dict[str, Any]]] = {
    "/": [
        {"query_type": "count", "query": "the cat"},
        {"query_type": "ntd", "query_ids": [116, 104], "max_support": 10},
        {"query_type": "infgram_prob", "query": "the cat sat"},
        {"query_type": "prob", "query_ids": [[116, 104], [104]]},
        {"query_type": "infgram_ntd", "query": ["the", "cat"]},
        {"query_type": "find", "query": "cat"},
        {"query_type": "find_cnf", "query": "cat AND dog OR king", "max_diff_tokens": 10},
        {"query_type": "search_docs", "query": "cat", "maxnum": 2, "max_disp_len": 8, "seed": 1},
        {"query_type": "get_doc_by_rank", "query": "cat", "s": 0, "rank": 1, "max_disp_len": 9},
        {"query_type": "get_docs_by_ranks", "query": "cat", "list_of_s_and_rank": [[0, 1]]},
    ],
    "/v1/completions": [
        {"model": "i", "prompt": "the c", "max_tokens": 4, "temperature": 0.5, "top_k": 3, "seed": 1},
        {"prompt": [[116, 104], [99]], "max_tokens": 2, "logprobs": 2, "n": 2, "stop": ["a"], "echo": True},
        {"prompt": [99, 97], "max_tokens": 0, "prompt_logprobs": 1, "top_p": 0.5, "max_order": 3},
    ],
    "/v1/targets": [
        {"input_ids": _IDS, "next_ids": _IDS, "top_k": 4, "form": "safetensors", "evidence": ["distinct"]},
        {"input_ids": [[1, 2], [3]], "starts_document": [True, False], "positions": [0, 24], "base": False},
        {"input_ids": _IDS, "attention_mask": [[1, 1, 1, 0], [1, 1, 1, 1]], "leave_out": "self"},
        {"input_ids": [[1, 2, 3, 4]], "position_ids": [[0, 1, 0, 1]], "estimator": "katz", "max_order": 2},
        {"input_ids": [[1, 2, 3, 4]], "cu_seq_lens": [0, 2, 4], "top_p": 0.9},
    ],
    "/api/continue": [{"text": "the c", "top": 3, "places": 2, "min_count": 1, "estimator": "witten-bell"}],
    "/api/trace": [{"text": "the cat sat on", "min_length": 2, "max_count": 9, "places": 1}],
    "/api/teach": [{"text": "the cat", "policy": {"corpus": {"weight": 0.5}}, "leave_out": None, "max_order": 2}],
    "/api/document": [{"document": 1, "offset": 3, "length": 4}],
    "/api/corpus": [{}],
}
_SAMPLES = [("POST", path, body) for path, bodies in _POSTS.items() for body in bodies]
_SAMPLES += [("GET", path, {}) for path in ("/v1/models", "/openapi.json")]
_QUERIES = (
    "/api/continue?text=the%20c&top=3", "/api/document?document=1", "/api/trace?text=the+cat+sat&min_length=2",
    "/health", "/metrics", "/", "/docs", "/api/teach?text=the%20cat&policy=half", "/shared.js",
)  # fmt: skip


class _Server:
    """The application over one small index, made in the process that asks it, and an event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: tuple[int, Any, asyncio.AbstractEventLoop] | None = None

    def close(self) -> None:
        """Let go of the loop, the threads and the index."""
        if self._made is not None:
            _, app, loop = self._made
            app.state.shared.joiner.close()
            app.state.shared.served.close()
            loop.close()

    def ask(self, method: str, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """A request to its end; RuntimeError or what the route raised where the answer is no answer."""
        if self._made is None or self._made[0] != os.getpid():  # threads don't outlive a fork
            from corpus_teacher.serve.app import create_app
            from corpus_teacher.serve.indexes import open_indexes
            from corpus_teacher.serve.limits import Limits, ServeOptions

            limits = Limits(positions=1 << 12, batch_positions=1 << 12, body_bytes=1 << 16, queries=64)
            options = ServeOptions(access_log=False, threads=1, limits=limits)
            app = create_app(open_indexes([f"i={self._path}"], options), options)
            self._made = os.getpid(), app, asyncio.new_event_loop()
        status = self._made[2].run_until_complete(self._answered(self._made[1], method, path, body, headers))
        if 400 <= status < 500 or status == 503:
            raise InputError(f"status {status}")
        if not 200 <= status < 400:
            raise RuntimeError(f"status {status}")

    async def _answered(
        self, app: Callable[..., Any], method: str, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> int:
        place, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": place, "raw_path": place.encode("utf-8", "surrogatepass"), "root_path": "",
            "query_string": query.encode("utf-8", "surrogatepass"), "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80), "headers": [(b"host", b"127.0.0.1"), *headers],
        }  # fmt: skip
        statuses: list[int] = []
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                await asyncio.sleep(3600)
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app(scope, receive, send)
        return statuses[0]


def _served(folder: Path) -> _Server:
    source = folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in _TEXTS), encoding="utf-8")
    build_index_from_sources([str(source)], folder / "index", BuildOptions(tokenizer="bytes", workers=1))
    return _Server(folder / "index")


def _json(folder: Path) -> Input:
    """Requests as [method, path, body]."""
    server = _served(folder)

    def read(content: bytes) -> None:
        try:
            method, path, body = json.loads(content)
        except (ValueError, TypeError, RecursionError):
            return
        if not isinstance(method, str) or not isinstance(path, str) or not method.isalpha():
            return
        server.ask(method, "/" + path.lstrip("/"), json.dumps(body).encode(), [(b"content-type", b"application/json")])

    return Input([json.dumps(sample).encode() for sample in _SAMPLES], read, structure="json", close=server.close)


def _body(folder: Path) -> Input:
    """A byte that names the route, and any bytes as its body."""
    server = _served(folder)
    posts = [(path, json.dumps(body).encode()) for method, path, body in _SAMPLES if method == "POST"]
    routes = sorted({path for path, _ in posts})

    def read(content: bytes) -> None:
        server.ask("POST", routes[content[0] % len(routes)] if content else "/", content[1:])

    return Input([bytes([routes.index(path)]) + body for path, body in posts], read, close=server.close)


def _query(folder: Path) -> Input:
    """Paths with queries, of GET."""
    server = _served(folder)

    def read(content: bytes) -> None:
        server.ask("GET", "/" + content.decode("latin-1").lstrip("/"), b"")

    return Input([sample.encode() for sample in _QUERIES], read, close=server.close)


def _batch(kind: str) -> Callable[[Path], Input]:
    """Bodies of /v1/targets that aren't JSON; what they unpack to is unpacked beside."""

    def prepare(folder: Path) -> Input:
        server = _served(folder)
        ids = np.array(_IDS)
        samples = [
            pack_batch({"input_ids": ids, "next_ids": ids}, {"top_k": 3, "leave_out": "self"}, kind),
            pack_batch({"input_ids": ids[:1], "starts_document": np.array([True])}, {"evidence": ["distinct"]}, kind),
            pack_batch(
                {"input_ids": ids, "attention_mask": np.ones((2, 4), bool)}, {"end_token": 32, "base": False}, kind
            ),
        ]

        def read(content: bytes) -> None:
            unpack_batch(content, kind)
            server.ask("POST", "/v1/targets", content, [(b"content-type", kind.encode())])

        return Input(samples, read, close=server.close)

    return prepare


def _targets(kind: str) -> Callable[[Path], Input]:
    """Answers of a server, as its client reads them."""

    def prepare(folder: Path) -> Input:
        arrays = {
            "offsets": np.array([0, 2, 3]), "token_ids": np.array([1, 2, 0]), "probs": np.array([0.25, 0.25, 0.5]),
            "rest": np.array([0.5, 0.5]), "match_len": np.array([2, 0]), "context_count": np.array([7, 9]),
            "cut_mass": np.zeros(2), "valid": np.array([True, True]), "base": np.full(4, 0.25, np.float32),
            "evidence.distinct": np.array([2, 3]),
        }  # fmt: skip
        described = {"kind": "corpus", "index_fingerprint": "f" * 64}
        about = {"teacher": described, "vocab_size": 4, "base_id": "ab", "shape": [1, 2]}
        models = {"data": [{"id": "i", "index": {"name": "i", "fingerprint": "f" * 64, "vocab_size": 4}}]}

        class Client(RemoteTeacher):
            """A teacher whose server says what it is told to."""

            said = (json.dumps(models).encode(), "application/json")

            def _request(self, method: str, path: str, body: bytes | None, kind: str | None) -> tuple[bytes, str]:
                return Client.said if method == "POST" else (json.dumps(models).encode(), "application/json")

        def read(content: bytes) -> None:
            unpack_targets(content, kind)
            Client.said = content, kind
            targets = Client("http://127.0.0.1:1", form="arrow")([[1, 2]])
            targets.entropy()

        return Input([pack_targets(arrays, about, kind)], read)

    return prepare


REQUESTS: dict[str, Callable[[Path], Input]] = {
    "http-json": _json,
    "http-body": _body,
    "http-query": _query,
    "http-arrow": _batch(ARROW),
    "http-safetensors": _batch(SAFETENSORS),
    "answer-arrow": _targets(ARROW),
    "answer-safetensors": _targets(SAFETENSORS),
}
"""By name: what makes the input of a request's or an answer's reader."""
