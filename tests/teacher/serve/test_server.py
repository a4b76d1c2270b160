"""The server itself: who may ask, how much, and how it ends. Real processes, real HTTP."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

import uvicorn
from h11 import LocalProtocolError
from prometheus_client import generate_latest
from typer.testing import CliRunner
from uvicorn.server import ServerState

from bench.load import load
from corpus_teacher.cli.main import app
from corpus_teacher.serve import heads, joining
from corpus_teacher.serve.access import AccessLog
from corpus_teacher.serve.counters import Counters
from corpus_teacher.serve.joining import Joiner
from corpus_teacher.serve.limits import Limits, RefusedRequest
from corpus_teacher.serve.server import _quick_threads
from tests.teacher.serve.conftest import ROOT, Client, running
from tests.warm import WarmChild

pytestmark = pytest.mark.slow


def test_health_models_and_indexes(server: Client) -> None:
    assert server.ask("/health").json["status"] == "ok"
    models = server.ask("/v1/models").json
    assert models["object"] == "list"
    assert [one["id"] for one in models["data"]] == ["animals", "tales"]
    described = server.ask("/api/indexes").json["indexes"]
    assert described == [one["index"] for one in models["data"]]
    assert described[0]["vocab_size"] == 257
    assert described[0]["num_documents"] == 5


def test_the_page_and_what_is_not_there(server: Client) -> None:
    page = server.ask("/")
    assert page.headers["content-type"].startswith("text/html")
    assert b"http://" not in page.body
    assert b"https://" not in page.body
    missing = server.ask("/v1/nothing")
    assert missing.status == 404
    assert "/v1/nothing" in missing.sentence
    assert server.ask("/v1/models", {"a": 1}).status == 405


def test_metrics(server: Client) -> None:
    server.ask("/health")
    answer = server.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    assert 'corpus_teacher_requests_total{route="/health",status="200"}' in text
    assert "corpus_teacher_request_seconds_bucket" in text


def test_pages_of_others_may_not_ask(server: Client) -> None:
    assert server.ask("/v1/models", headers={"Origin": "https://elsewhere.example"}).status == 403
    assert server.ask("/v1/models", headers={"Host": "elsewhere.example"}).status == 421
    assert server.ask("/v1/models", headers={"Origin": server.url}).status == 200


def test_the_token(indexes: dict[str, Path]) -> None:
    with running("--no-access-log", indexes=indexes, env={"CORPUS_TEACHER_TOKEN": "secret"}) as client:
        assert client.ask("/health").status == 200
        assert client.ask("/").status == 200
        for path in ("/v1/models", "/api/indexes", "/metrics"):
            refused = client.ask(path)
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "token" in refused.sentence
            assert client.ask(path, headers={"Authorization": "Bearer secrets"}).status == 401
            assert client.ask(path, headers={"Authorization": "Bearer secret"}).status == 200


def test_the_routes_are_described_and_need_no_internet(server: Client) -> None:
    described = server.ask("/openapi.json").json
    assert described["openapi"].startswith("3.")
    for path, methods in described["paths"].items():
        for method in methods:
            body = {"index": "tales", "model": "tales"} if method == "post" else None
            assert server.ask(path, body, method=method.upper()).status in (200, 400)
    page = server.ask("/docs").body.decode()
    assert "openapi.json" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" not in page


def test_limits_of_requests(indexes: dict[str, Path]) -> None:
    limits = ("--max-body", "1", "--max-positions", "64", "--no-access-log")
    with running(*limits, indexes={"tales": indexes["tales"]}) as client:
        long = client.ask("/v1/completions", {"prompt": "a" * 100, "max_tokens": 0})
        assert long.status == 413
        assert "64" in long.sentence
        assert client.ask("/v1/targets", {"input_ids": [[1] * 100]}).status == 413
        assert client.ask("/", {"query_type": "count", "query": "a" * 100}).status == 413
        assert client.ask("/", b" " * (2 << 20)).status == 413
        assert client.ask("/", {"query_type": "count", "query": "cat"}).json["count"] == 3


def test_clients_that_go_away_or_dawdle(indexes: dict[str, Path]) -> None:
    with running("--max-seconds", "1", "--no-access-log", indexes={"tales": indexes["tales"]}) as client:
        host, _, port = client.url.removeprefix("http://").partition(":")
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 500\r\n\r\n".encode()
        body = json.dumps({"query_type": "ntd", "query": "the "}).encode()
        for number in range(40):  # in the middle of a request, or before the answer
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(head if number % 2 else head.replace(b"500", str(len(body)).encode()) + body)
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")
        assert client.ask("/", {"query_type": "count", "query": "cat"}).json["count"] == 3


def test_without_the_extra_one_sentence_says_so(indexes: dict[str, Path]) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; sys.argv = ['corpus-teacher', 'serve', 'x']\n"
        "from corpus_teacher.cli.main import main; main()"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "index")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=180)
    assert done.returncode == 2
    assert "pip install corpus-teacher[serve]" in done.stderr
    assert "Traceback" not in done.stderr


def test_overload_is_sent_away_and_joined_questions_are_answered_apart() -> None:
    """One thread, which waits until it may go on; two may wait, and the third is sent away."""
    free = threading.Event()
    batches: list[list[int]] = []

    def answer(questions: list[int]) -> list[int]:
        batches.append(list(questions))
        assert free.wait(10)
        if 13 in questions:
            raise RefusedRequest("13 is no good")
        return [question * 2 for question in questions]

    async def run() -> list[object]:
        joiner = Joiner(1, Limits(waiting_requests=3, waiting_positions=8, request_s=5), Counters())
        first = asyncio.create_task(joiner.ask("a", answer, 1))
        await asyncio.sleep(0.05)
        others = [
            asyncio.create_task(joiner.ask(key, answer, number)) for key, number in (("b", 2), ("b", 13), ("b", 4))
        ]
        await asyncio.sleep(0)
        with pytest.raises(RefusedRequest, match="3 requests") as full:
            await joiner.ask("a", answer, 5)
        assert (full.value.status, full.value.retry_after_s) == (429, 1)
        free.set()
        told = await asyncio.gather(first, *others, return_exceptions=True)
        with pytest.raises(RefusedRequest, match="13"):
            await joiner.ask("b", answer, 13)
        joiner.close()
        return list(told)

    told = asyncio.run(run())
    assert told[0] == 2
    assert told[1] == 4
    assert isinstance(told[2], RefusedRequest)
    assert told[3] == 8
    assert batches[:2] == [[1], [2, 13, 4]]


def test_who_waits_too_long_is_told() -> None:
    free = threading.Event()

    async def run() -> None:
        joiner = Joiner(1, Limits(request_s=1), Counters())
        first = asyncio.create_task(joiner.run(lambda: free.wait(10)))
        await asyncio.sleep(0)
        with pytest.raises(RefusedRequest, match="1 s") as late:
            await joiner.run(lambda: 1)
        assert late.value.status == 503
        assert joiner.waiting == 0
        free.set()
        with pytest.raises(RefusedRequest):
            await first
        joiner.close()

    asyncio.run(run())


def test_what_it_refuses_to_serve(indexes: dict[str, Path], tmp_path: Path) -> None:
    def refusal(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["serve", *arguments])
        assert done.exit_code == 2
        return done.stderr

    animals = str(indexes["animals"])
    assert "'a'" in refusal(f"a={animals}", f"a={animals}", "--port", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal(animals, "--port", str(port))
    assert "nothing" in refusal(str(tmp_path / "nothing"), "--port", "0")


def test_a_server_of_indexes_starts_without_transformers(indexes: dict[str, Path]) -> None:
    code = (
        "import sys\nfrom corpus_teacher.serve import ServeOptions, create_app, open_indexes\n"
        f"create_app(open_indexes([{str(indexes['tales'])!r}], ServeOptions()), ServeOptions())\n"
        "assert not {'transformers', 'datasets', 'pandas'} & set(sys.modules)"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "index")])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


def test_it_stops_gracefully_and_logs(indexes: dict[str, Path]) -> None:
    process = WarmChild("-m", "corpus_teacher", "serve", indexes["tales"], "--port", "0", start_new_session=True)
    address = process.stdout.readline().split()[-1]
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["data"][0]["id"] == "tales"
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "GET /v1/models 200" in errors


def test_a_client_that_breaks_http_within_its_body_leaves_no_traceback() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    async def closed(message: Any) -> None:
        raise LocalProtocolError("can't handle event type Response when role=SERVER and state=MUST_CLOSE")

    counters = Counters()
    scope = {"type": "http", "method": "POST", "path": "/"}
    asyncio.run(AccessLog(app, counters, logs=False)(scope, closed, closed))
    assert 'status="499"' in generate_latest(counters.registry).decode()


def test_small_questions_are_answered_at_once_until_one_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]  # a clock of our own: other programs may hold up this one
    monkeypatch.setattr(joining, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def answer(questions: list[float]) -> list[int]:
        now[0] += questions[0]
        return [threading.get_ident()] * len(questions)

    async def run() -> list[int]:
        joiner = Joiner(1, Limits(), Counters())
        told = [await joiner.ask("a", answer, wait, is_small=True) for wait in (0.0, 0.0, 0.02, 0.0)]
        with pytest.raises(ZeroDivisionError):
            await joiner.ask("a", lambda questions: [1 // 0], 0, is_small=True)
        joiner.close()
        return told

    told = asyncio.run(run())
    here = threading.get_ident()
    assert told[:3] == [here] * 3
    assert told[3] != here


def test_the_server_does_not_pause() -> None:
    gc.unfreeze()  # of the tests themselves
    before = sys.getswitchinterval()
    with _quick_threads():
        assert sys.getswitchinterval() < before
        assert gc.get_freeze_count() > 1000
    assert sys.getswitchinterval() == before
    assert gc.get_freeze_count() == 0
    gc.freeze()


def test_a_head_without_end_is_refused(server: Client) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    line = b"a: " + b"b" * 1000 + b"\r\n"
    for part in (line, b"c" * 1000):  # many headers, and one
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nhost: {host}\r\n".encode() + b"x: ")
            answer = b""
            try:
                for _ in range(4000):
                    connection.sendall(part)
                while came := connection.recv(1 << 16):
                    answer += came
            except OSError:  # closed while it still sends
                pass
            assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
            assert b" 200 " not in answer
    told = server.ask("/", {"index": "tales", "query_type": "count", "query": "cat"}, headers={"x": "y" * 30_000})
    assert told.json["count"] == 3


def test_heads_are_bounded_where_httptools_reads_them() -> None:
    pytest.importorskip("httptools")

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        """An application that is never asked."""

    config = uvicorn.Config(nothing, http=heads.protocol())
    config.load()
    written: list[bytes] = []

    class Transport(asyncio.Transport):
        def write(self, data: Any) -> None:
            written.append(bytes(data))

        def close(self) -> None:
            written.append(b"closed")

        def is_closing(self) -> bool:
            return b"closed" in written

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

    async def run() -> int:
        reader: Any = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
        reader.connection_made(Transport())
        reader.data_received(b"GET / HTTP/1.1\r\nlong: ")
        sent = 0
        while not written and sent < 10 * heads.HEAD_BYTES:
            reader.data_received(b"x" * 1024)
            sent += 1024
        return sent

    assert heads.HEAD_BYTES < asyncio.run(run()) <= heads.HEAD_BYTES + 1024
    assert written[0].startswith(b"HTTP/1.1 400")


def test_the_load_generator_tells_each_answer(server: Client) -> None:
    told = load(server.url, 4, 20, 257, mixed=False)
    assert [len(times) for times in told["took_ms"]] == [5] * 4
    assert told["errors"] == 20  # there are two indexes, and none is named
