"""A server among bad clients: its answers stay right, its memory and its descriptors flat.

`corpus-teacher serve` runs in a process of its own. Clients, a thread each, take turns at random: ask and compare with
what the index says; send rubbish (bytes that aren't HTTP, JSON that is broken, ids that no vocabulary has, lengths that
lie); hang up in the middle of a request, or before its answer; come back on a new connection. Every answer to a good
request must be right, rubbish must be refused with a status below 500. The server's memory that no file backs and its
descriptors are read all the time: flat means that the last quarter's median is that of the second quarter, within a few
MiB and descriptors.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import build_index, open_index

from bench.trust.flips import small_corpus

CLIENTS = 8
MOST_MIB, MOST_DESCRIPTORS = 24.0, 8
"""What the medians of two quarters may differ by and be called flat."""

SETTLED_S = 120.0
"""A shorter run is all beginning: what it held is told and isn't judged."""

_TIMEOUT_S = 120
_RUBBISH_BODIES = (
    b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"query_type": "count"}',
    b'{"query_type": "count", "query_ids": [-1]}',
    b'{"query_type": "count", "query_ids": [99999999999999999999]}', b'{"query_type": "count", "query_ids": "a"}',
    b'{"query_type": 7, "query_ids": [1]}', b'{"input_ids": [[1, 2], [3]]}', b'{"input_ids": [["a"]]}',
    b'{"prompt": [1], "max_tokens": -4}', b'{"prompt": [1e400]}', b"[" * 5_000, b"{}" * 100,
)  # fmt: skip
_PATHS = ("/", "/v1/targets", "/v1/completions", "/api/next", "/../etc/passwd", "/%00", "/v1/" + "x" * 5_000)


class Soak:
    """Clients of one server, and what they count."""

    def __init__(self, address: str, right: list[tuple[list[int], int]], until: float) -> None:
        host, _, port = address.removeprefix("http://").rstrip("/").partition(":")
        self.address, self.right, self.until = (host, int(port)), right, until
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def count(self, name: str) -> None:
        """One more of something."""
        with self.lock:
            self.counts[name] += 1

    def client(self, seed: int) -> None:
        """One client, until the clock says so."""
        order = random.Random(seed)
        turns: list[Callable[[random.Random], None]] = [self.ask, self.ask, self.rubbish, self.lie, self.hang_up]
        while time.monotonic() < self.until:
            turn = order.choice(turns)
            try:
                turn(order)
            except Exception as error:  # of a good request; the others expect that the line breaks
                self.count("errors")
                self.count(f"{turn.__name__}: {type(error).__name__}: {error}"[:200])

    def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.address, timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, order: random.Random) -> None:
        """Some good requests on one connection."""
        connection = http.client.HTTPConnection(*self.address, timeout=_TIMEOUT_S)
        for ids, expected in order.choices(self.right, k=order.randint(1, 8)):
            connection.request("POST", "/", json.dumps({"query_type": "count", "query_ids": ids}))
            answer = connection.getresponse()
            content = answer.read()
            if answer.status in (429, 503):
                self.count("sent away")
                continue
            self.count("asked")
            if answer.status != 200 or json.loads(content)["count"] != expected:
                self.count("wrong")
                self.count(f"wrong: {answer.status} {content[:100]!r}")
        connection.close()

    def rubbish(self, order: random.Random) -> None:
        """A request that can't be answered."""
        body = order.choice(_RUBBISH_BODIES) if order.random() < 0.8 else order.randbytes(order.randint(1, 4_000))
        status, content = self._request(order.choice(("POST", "GET", "PUT")), order.choice(_PATHS), body)
        self.count("rubbish")
        if status >= 500 and status != 503:
            self.count("errors")
            self.count(f"rubbish: {status} {content[:100]!r}")

    def lie(self, order: random.Random) -> None:
        """Bytes that aren't HTTP, or lie about their length; whatever comes back is read for a moment."""
        said = order.choice(
            (
                order.randbytes(order.randint(1, 2_000)),
                b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n{}",
                b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
                b"GET / HTTP/9.9\r\n" + b"a: b\r\n" * 500,
                b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            )
        )
        with self._line() as line:
            self.count("lies")
            try:
                line.sendall(said)
                line.settimeout(0.2)
                line.recv(100)
            except OSError:
                pass

    def hang_up(self, order: random.Random) -> None:
        """A good request, left before its end or before its answer."""
        ids, _ = order.choice(self.right)
        body = json.dumps({"input_ids": [ids * 40]}).encode()
        said = b"POST /v1/targets HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        with self._line() as line:
            self.count("hung up")
            line.sendall(said[: order.randint(1, len(said))] if order.random() < 0.5 else said)
            if order.random() < 0.3:  # a reset in place of an end
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def _line(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=_TIMEOUT_S)


def memory_mib(process: int) -> float:
    """Resident memory that no file backs."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def quarters(samples: list[float]) -> list[float]:
    """The median of each quarter."""
    size = max(1, len(samples) // 4)
    return [round(statistics.median(samples[k * size : (k + 1) * size] or samples[-1:]), 1) for k in range(4)]


def campaign(seconds: float, seed: int = 0, *, clients: int = CLIENTS) -> dict[str, Any]:
    """What a server answered, and what it held."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        path = Path(folder) / "index"
        build_index(path=path, **small_corpus(seed, wide=False)).close()
        order = np.random.default_rng(seed)
        with open_index(path) as index:
            tokens = np.asarray(index.tokens)
            asked = [tokens[k : k + 1 + k % 3].tolist() for k in order.integers(0, tokens.size - 4, 200)]
            right = [(ids, int(index.count(ids))) for ids in asked]
        command = [sys.executable, "-m", "corpus_teacher", "serve", f"it={path}", "--port", "0", "--no-access-log"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stderr is not None
            complaints: list[str] = []
            listener = threading.Thread(target=lambda: complaints.extend(server.stderr), daemon=True)
            listener.start()
            address = server.stdout.readline().split()[-1]
            soak = Soak(address, right, time.monotonic() + seconds)
            threads = [threading.Thread(target=soak.client, args=(seed + number,)) for number in range(clients)]
            for one in threads:
                one.start()
            memory, descriptors = [], []
            while any(one.is_alive() for one in threads):
                memory.append(memory_mib(server.pid))
                descriptors.append(float(len(os.listdir(f"/proc/{server.pid}/fd"))))
                time.sleep(min(1.0, seconds / 40))
            died = server.poll() is not None
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
            listener.join(10)
    counts = soak.counts
    counted = ("asked", "wrong", "errors", "rubbish", "lies", "hung up", "sent away")
    tracebacks = sum("Traceback" in line for line in complaints)
    counts.update(f"said: {line.strip()}"[:200] for line in complaints if line[:1].isalpha() and "Error" in line)
    memory_quarters, descriptor_quarters = quarters(memory), quarters(descriptors)
    settled = seconds >= SETTLED_S
    return {
        "seconds": seconds,
        "clients": clients,
        **{name: counts[name] for name in counted},
        "died": int(died),
        "exit_code": code,
        "tracebacks": tracebacks,
        "memory_mib": memory_quarters,
        "descriptors": descriptor_quarters,
        "memory_grew": int(settled and memory_quarters[3] - memory_quarters[1] > MOST_MIB),
        "descriptors_grew": int(settled and descriptor_quarters[3] - descriptor_quarters[1] > MOST_DESCRIPTORS),
        "more": {name: count for name, count in sorted(counts.items()) if name not in counted},
    }
