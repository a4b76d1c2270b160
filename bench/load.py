"""`python -m bench.load URL`: a load generator, light enough to share a small machine with the server that it measures.

Naively: a process for each client; sixteen of Python's take more of two cores than the server. Here one process holds a
connection for each client, sends the next request where an answer came, and waits for all of them at once. It imports
nothing but the standard library, so `bench.serve` can also start one process a client, and kill it.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import socket
import time
from typing import Any
from urllib.parse import urlsplit

_END = b"\r\n\r\n"


class _Client:
    """A connection of its own: what it asks, and the milliseconds of each answer."""

    def __init__(self, host: str, port: int, requests: list[bytes]) -> None:
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = requests[::-1]
        self.took_ms: list[float] = []
        self.errors = 0
        self._answer = b""
        self._begin = 0.0

    def send(self) -> None:
        """The next request."""
        self._begin = time.perf_counter()
        self.socket.sendall(self.left.pop())

    def read(self) -> bool:
        """What has come; whether that was the end of an answer."""
        self._answer += (came := self.socket.recv(1 << 16))
        head, end, body = self._answer.partition(_END)
        if came and not (end and len(body) >= _length(head)):
            return False
        self.took_ms.append(1000 * (time.perf_counter() - self._begin))
        if not came:
            self.errors += 1 + len(self.left)
            self.left = []
        else:
            self.errors += head.split(None, 2)[1] not in (b"200", b"429")
        self._answer = b""
        return True


def _length(head: bytes) -> int:
    """Of the body that follows."""
    lines = head.lower().split(b"\r\n")
    return next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))


def requests_of(seed: int, number: int, vocab_size: int, mixed: bool, host: str) -> list[bytes]:
    """What a client asks: counts of short n-grams, or requests of all kinds."""
    rng = random.Random(seed)
    made = []
    for _ in range(number):
        ids = [rng.randrange(min(vocab_size, 500)) for _ in range(rng.randint(1, 4))]
        path, body = "/", {"query_type": "count", "query_ids": ids}
        if mixed:
            path, body = rng.choice(
                [
                    (path, body),
                    ("/", {"query_type": "infgram_prob", "query_ids": ids}),
                    ("/v1/completions", {"prompt": ids, "max_tokens": 4, "prompt_logprobs": 4}),
                    ("/v1/targets", {"input_ids": [ids * 16]}),
                ]
            )
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        made.append(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return made


def load(url: str, clients: int, requests: int, vocab_size: int, mixed: bool, seed: int = 0) -> dict[str, Any]:
    """Ask with that many clients at once, each one request after another.

    Returns
    -------
    dict
        took_ms: of each client's requests, in order; errors: answers other than 200 and 429, and requests without one;
        wall_s.
    """
    parts = urlsplit(url)
    each = max(1, requests // clients)
    made = [
        _Client(
            str(parts.hostname), int(parts.port or 80), requests_of(seed + n, each, vocab_size, mixed, parts.netloc)
        )
        for n in range(clients)
    ]
    begin = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for one in made:
            selector.register(one.socket, selectors.EVENT_READ, one)
            one.send()
        while selector.get_map():
            ready = selector.select(60)
            if not ready:
                raise TimeoutError(f"{url} didn't answer for 60 s")
            for key, _ in ready:
                if key.data.read():
                    if key.data.left:
                        key.data.send()
                    else:
                        selector.unregister(key.data.socket)
                        key.data.socket.close()
    return {
        "took_ms": [one.took_ms for one in made],
        "errors": sum(one.errors for one in made),
        "wall_s": time.perf_counter() - begin,
    }


def main() -> None:
    """Ask, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--vocab-size", type=int, default=500)
    parser.add_argument("--mixed", action="store_true", help="requests of all kinds, not counts alone")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(load(given.url, given.clients, given.requests, given.vocab_size, given.mixed, given.seed)))


if __name__ == "__main__":
    main()
