"""A real server in a process of its own, forked from a warm one, over small indexes, and a plain client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.warm import WarmChild

ROOT = Path(__file__).parents[3]

TEXTS = [
    "the cat sat on the mat and the dog sat on the log",
    "the cat sat on the rug while the dog slept",
    "a dog and a cat met on the road and the cat ran",
    "once upon a time the cat sat on the throne of a king",
    "the king and the queen had a cat and the cat had a mat",
]


@dataclass
class Answer:
    """Status, headers and content of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        error = self.json["error"]
        return str(error["message"] if isinstance(error, dict) else error)


@dataclass
class Client:
    """Requests to a server, one connection each."""

    url: str
    pid: int
    indexes: dict[str, Path]

    def ask(
        self, path: str, payload: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        data = payload if payload is None or isinstance(payload, bytes) else json.dumps(payload).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def make_index(folder: Path, texts: list[str] = TEXTS) -> Path:
    """An index of texts, of bytes."""
    from corpus_teacher.data import BuildOptions, build_index_from_sources

    source = folder.parent / f"{folder.name}.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    build_index_from_sources([str(source)], folder, BuildOptions(tokenizer="bytes", workers=1))
    return folder


@contextmanager
def running(*arguments: str, indexes: dict[str, Path], env: dict[str, str] | None = None) -> Iterator[Client]:
    """`corpus-teacher serve` in a process group of its own, until the block ends."""
    places = [f"{name}={path}" for name, path in indexes.items()]
    environment = {k: v for k, v in os.environ.items() if k != "CORPUS_TEACHER_TOKEN"} | (env or {})
    command = ("-m", "corpus_teacher", "serve", *places, "--port", "0", *arguments)
    process = WarmChild(*command, env=environment, start_new_session=True)
    try:
        line = process.stdout.readline()
        if not line.startswith("serving at "):
            _, errors = process.communicate(timeout=120)
            raise AssertionError(f"the server said {line!r} and {errors}")
        yield Client(line.split()[-1], process.pid, indexes)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors


@pytest.fixture(scope="session")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two indexes of bytes, by name."""
    folder = tmp_path_factory.mktemp("indexes")
    return {"animals": make_index(folder / "animals"), "tales": make_index(folder / "tales", TEXTS[3:])}


@pytest.fixture(scope="session")
def server(indexes: dict[str, Path]) -> Iterator[Client]:
    """A server of both."""
    with running("--max-seconds", "170", indexes=indexes) as client:  # kernels may be compiled on a busy machine
        yield client
