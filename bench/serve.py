"""`python -m bench.serve INDEX`: a server of an index under load, on loopback, and the same teacher in this process.

Three measurements, each against a server that `corpus-teacher serve` starts anew:

- targets a second: batches of rows of the index through `RemoteTeacher` (Arrow and safetensors), as a training asks for
  them (`prefetch`), and through `CorpusTeacher` here; a row counts only if the first batch is the same bits;
- single queries: so many clients, each in a process of its own, ask one count after another; p50 and p99 of a request;
- a day in short: many requests of all kinds by clients of which some are killed in the middle of one, again and again:
  errors that living clients met, and the server's memory before and after.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from bench import machine
from bench.index.run import say
from corpus_teacher import CorpusTeacher, RemoteTeacher

_HEADERS = {"content-type": "application/json"}


@contextmanager
def server(index: Path) -> Iterator[tuple[str, int]]:
    """The address and the process of a server."""
    command = [sys.executable, "-m", "corpus_teacher", "serve", f"it={index}", "--port", "0", "--no-access-log"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def memory_bytes(pid: int) -> int:
    """Resident memory that no file backs."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def targets(index: Path, rows: int, length: int, batches: int, runs: int) -> dict[str, Any]:
    """Targets a second, in this process and over HTTP."""
    how: dict[str, Any] = {"leave_out": "self", "top_k": 64}
    local = CorpusTeacher(index, **how)
    tokens, rng = local.index.tokens, np.random.default_rng(0)
    begins = rng.integers(0, len(tokens) - length, (batches, rows))
    made = [{"input_ids": np.stack([tokens[b : b + length] for b in begin]).astype(np.int64)} for begin in begins]
    expected, size = local(made[0]), batches * rows * length
    told: dict[str, Any] = {}

    def timed(name: str, ask: Any) -> None:
        rates = []
        for _ in range(runs):
            begin = time.perf_counter()
            ask()
            rates.append(size / (time.perf_counter() - begin))
        told[name] = {"targets_per_s": statistics.median(rates), "runs": rates}

    timed("in process", lambda: [local(batch) for batch in made])
    with server(index) as (url, _):
        for form in ("arrow", "safetensors"):
            remote = RemoteTeacher(url, form=form, **how)
            first = remote(made[0])
            if not all(torch.equal(getattr(first, name), getattr(expected, name)) for name in vars(expected)):
                raise RuntimeError(f"{form}: the answers differ")
            timed(form, lambda remote=remote: list(remote.prefetch(made, depth=2)))
            timed(f"{form}, one by one", lambda remote=remote: [remote(batch) for batch in made])
            remote.close()
    for one in told.values():
        one["of_in_process"] = one["targets_per_s"] / told["in process"]["targets_per_s"]
    return told


def _client(url: str, seed: int, requests: int, vocab_size: int, mixed: bool, told: Any, all_there: Any = None) -> None:
    """One client: milliseconds of each request, and errors. It begins when all are there: importing takes seconds."""
    if all_there is not None:
        all_there.wait(120)
    parts, rng = urlsplit(url), random.Random(seed)
    took, errors = [], 0
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    for _ in range(requests):
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
        begin = time.perf_counter()
        try:
            connection.request("POST", path, json.dumps(body), _HEADERS)
            answer = connection.getresponse()
            answer.read()
            errors += answer.status not in (200, 429)
        except (OSError, http.client.HTTPException):
            errors += 1
            connection.close()
        took.append(1000 * (time.perf_counter() - begin))
    connection.close()
    told.put((took, errors))


def latency(index: Path, clients: int, requests: int, vocab_size: int) -> dict[str, Any]:
    """Milliseconds of single queries with so many clients at once."""
    context = multiprocessing.get_context("spawn")
    with server(index) as (url, _):
        told = context.Queue()
        each = max(1, requests // clients)
        all_there = context.Barrier(clients + 1)
        made = [
            context.Process(target=_client, args=(url, seed, each, vocab_size, False, told, all_there))
            for seed in range(clients)
        ]
        for one in made:
            one.start()
        all_there.wait(120)
        begin = time.perf_counter()
        answers = [told.get(timeout=600) for _ in made]
        wall_s = time.perf_counter() - begin
        for one in made:
            one.join()
    took = np.concatenate([times[len(times) // 5 :] for times, _ in answers])  # without each client's first fifth
    return {
        "clients": clients,
        "requests": each * clients,
        "p50_ms": float(np.percentile(took, 50)),
        "p99_ms": float(np.percentile(took, 99)),
        "requests_per_s": each * clients / wall_s,
        "errors": sum(errors for _, errors in answers),
    }


def endurance(index: Path, clients: int, requests: int, vocab_size: int) -> dict[str, Any]:
    """Many requests, clients killed now and then."""
    context, rng = multiprocessing.get_context("spawn"), random.Random(0)
    with server(index) as (url, pid):
        told = context.Queue()
        _client(url, 99, 200, vocab_size, True, told)
        told.get(timeout=60)
        before, left, killed, errors, seed, memory = memory_bytes(pid), requests, 0, 0, 1000, []
        while left > 0:
            each = max(1, min(left, requests // 5) // clients)
            own = [context.Queue() for _ in range(clients)]
            made = [
                context.Process(target=_client, args=(url, seed + number, each, vocab_size, True, own[number]))
                for number in range(clients)
            ]
            for one in made:
                one.start()
            doomed = rng.sample(range(clients), max(1, clients // 8))
            connection = http.client.HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port)
            connection.request("GET", "/health")
            connection.getresponse().read()
            connection.close()
            time.sleep(3.0)  # spawned processes import first
            for number in doomed:
                if made[number].is_alive():
                    os.kill(made[number].pid or 0, signal.SIGKILL)
                    killed += 1
            for number, one in enumerate(made):
                if number not in doomed:
                    errors += own[number].get(timeout=600)[1]
                one.join()
            left -= each * clients
            seed += clients
            memory.append(memory_bytes(pid))
    return {
        "requests": requests,
        "clients": clients,
        "killed": killed,
        "errors": errors,
        "memory_before_mib": before / 2**20,
        "memory_mib": [one / 2**20 for one in memory],
    }


def main() -> None:
    """Measure, print a table, and one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    vocab_size = CorpusTeacher(given.index).vocab_size
    made: dict[str, Any] = {"machine": machine.describe(), "index": str(given.index.name)}
    made["targets"] = targets(given.index, given.rows, given.length, given.batches, given.runs)
    for name, one in made["targets"].items():
        say(f"{name:>28}: {one['targets_per_s']:>12,.0f} targets/s, {one['of_in_process']:.2f} of in process")
    made["latency"] = latency(given.index, given.clients, given.queries, vocab_size)
    say("{clients} clients: p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms, {errors} errors".format(**made["latency"]))
    made["endurance"] = endurance(given.index, given.clients, given.requests, vocab_size)
    say("{requests} requests, {killed} clients killed: {errors} errors, MiB {memory_mib}".format(**made["endurance"]))
    line = json.dumps(made)
    if given.out is not None:
        given.out.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
