"""The server itself: who may ask, how much, and how it ends. Real processes, real HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from tests.teacher.serve.conftest import ROOT, Client, running

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


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "index")])
    return subprocess.run(
        [sys.executable, "-m", "corpus_teacher", "serve", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
    )


def test_what_it_refuses_to_serve(indexes: dict[str, Path], tmp_path: Path) -> None:
    animals = str(indexes["animals"])
    twice = start(f"a={animals}", f"a={animals}")
    assert twice.returncode == 2
    assert "'a'" in twice.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = start(animals, "--port", str(port))
    assert busy.returncode == 2
    assert f"127.0.0.1:{port}" in busy.stderr
    missing = start(str(tmp_path / "nothing"), "--port", "0")
    assert missing.returncode == 2
    assert "nothing" in missing.stderr


def test_it_stops_gracefully_and_logs(indexes: dict[str, Path]) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "index")])
    process = subprocess.Popen(
        [sys.executable, "-m", "corpus_teacher", "serve", str(indexes["tales"]), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    assert process.stdout is not None
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
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "GET /v1/models 200" in errors
