"""Streams: the parts of each choice make the whole answer, and nothing is sent that the next token could change."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.serve.streaming import GrowingText

from .conftest import Client

END = 256


class _Bytes:
    """An index of bytes, as far as a growing text looks at it."""

    index = SimpleNamespace(end_of_document=END)

    @staticmethod
    def decode(ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


def cut(text: str, stop: list[str]) -> str:
    """The text before the first stop string."""
    return text[: min((place for one in stop if (place := text.find(one)) >= 0), default=len(text))]


@given(st.text("aé€😀 ab", max_size=12), st.lists(st.text("ab€", min_size=1, max_size=3), max_size=2), st.booleans())
def test_a_growing_text(text: str, stop: list[str], ends: bool) -> None:
    growing = GrowingText(_Bytes(), stop)  # type: ignore[arg-type]
    expected, shown = cut(text, stop), ""
    for token in [*text.encode(), *([END] if ends else [])]:
        shown += growing.add(token)
        assert expected.startswith(shown)
        if growing.finished:
            break
    shown += growing.close()
    assert shown == expected
    assert growing.finished == (ends or expected != text)


@given(st.lists(st.integers(0, 255), max_size=12))
def test_bytes_that_are_no_text(ids: list[int]) -> None:
    growing = GrowingText(_Bytes())  # type: ignore[arg-type]
    assert "".join([*map(growing.add, ids), growing.close()]) == _Bytes.decode(ids)


def test_text_is_not_held_for_nothing() -> None:
    growing = GrowingText(_Bytes(), ["ab"])  # type: ignore[arg-type]
    assert [growing.add(byte) for byte in b"cacb"] == ["c", "", "ac", "b"]
    growing = GrowingText(_Bytes())  # type: ignore[arg-type]
    assert [growing.add(byte) for byte in "a€b".encode()] == ["a", "", "", "€", "b"]


def events(client: Client, body: dict[str, Any]) -> Iterator[tuple[float, Any]]:
    """The parts of a stream, and when they came."""
    connection = http.client.HTTPConnection(str(urlsplit(client.url).netloc), timeout=60)
    connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}))
    with contextlib.closing(connection), connection.getresponse() as answer:
        assert answer.status == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer:
            if line.strip():
                name, _, said = line.decode().partition(": ")
                assert name == "data"
                yield time.perf_counter(), said.strip() if said.strip() == "[DONE]" else json.loads(said)


BODIES: list[dict[str, Any]] = [
    {"prompt": "the cat "},
    {"prompt": ["the cat ", "once upon"], "n": 2, "temperature": 0.5},
    {"prompt": "the ", "logprobs": 2, "echo": True, "prompt_logprobs": 1},
    {"prompt": "the king ", "stop": ["and", "t sa"], "max_tokens": 60},
    {"prompt": "the king ", "stop": "the ", "max_tokens": 60, "logprobs": 0, "return_token_ids": True},
    {"prompt": "once upon", "max_tokens": 0, "prompt_logprobs": 2},
    {"prompt": "", "max_tokens": 5},
    {
        "prompt": "once upon",
        "max_tokens": 5,
        "leave_out": "self",
        "max_order": None,
        "logprobs": 1,
    },
]


@pytest.mark.parametrize("body", BODIES)
def test_the_parts_make_the_whole(server: Client, body: dict[str, Any]) -> None:
    body = {"model": "tales", "seed": 3, **body}
    whole = server.ask("/v1/completions", body)
    assert whole.status == 200, whole.body
    *parts, done = [said for _, said in events(server, body)]
    assert done == "[DONE]"
    assert len({part["id"] for part in parts}) == 1
    for choice in whole.json["choices"]:
        mine = [one for part in parts for one in part["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert [one["finish_reason"] for one in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        if body.get("prompt_logprobs"):
            assert mine[0]["prompt_logprobs"] == choice["prompt_logprobs"]
        if choice["logprobs"] is not None:
            for name, values in choice["logprobs"].items():
                told = [value for one in mine if one["logprobs"] for value in one["logprobs"][name]]
                assert len(told) <= len(values)  # a stream ends with its stop string
                if name == "token_logprobs":
                    pairs = zip(told, values, strict=False)
                    assert all(a == b or a == pytest.approx(b, abs=1e-5) for a, b in pairs)
                elif name != "top_logprobs":
                    assert told == values[: len(told)]


def test_parts_come_while_more_are_drawn(server: Client) -> None:
    body = {"model": "tales", "prompt": "the ", "max_tokens": 300, "n": 8, "temperature": 3, "seed": 1}
    begin = time.perf_counter()
    came = [when for when, _ in events(server, body)]
    assert len(came) > 100
    assert came[0] - begin < (came[-1] - begin) / 2


def test_what_is_wrong_with_a_stream_is_said_before_it_begins(server: Client) -> None:
    for change in ({"temperature": -1}, {"model": "none"}, {"prompt": [999]}, {"stream_options": 3}):
        answer = server.ask("/v1/completions", {"model": "tales", "prompt": "a", "stream": True, **change})
        assert 400 <= answer.status < 500
        assert answer.sentence


def test_a_client_that_goes_away_ends_its_stream(server: Client) -> None:
    for _ in range(3):
        told = events(server, {"model": "tales", "prompt": "the ", "max_tokens": 100_000, "temperature": 2})
        next(told)
        told.close()  # type: ignore[attr-defined]
    assert server.ask("/health").json["waiting"] == 0
