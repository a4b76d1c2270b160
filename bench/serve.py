"""`python -m bench.serve INDEX`: a server of an index under load, on loopback, and the same teacher in this process.

Three measurements, each against a server that `corpus-teacher serve` starts anew:

- targets a second: batches of rows of the index through `RemoteTeacher` (Arrow and safetensors), as a training asks for
  them (`prefetch`), and through `CorpusTeacher` here; a row counts only if the first batch is the same bits;
- single queries: clients that ask one count after another (`bench.load`); p50 and p99 of a request, and what one costs
  the server in processor time, which other programs change less;
- a day in short: many requests of all kinds by clients of which some are killed in the middle of one, again and again:
  errors that living clients met, and the server's memory before and after.

It ends after `--limit` seconds with what it has.
"""

from __future__ import annotations

import argparse
import json
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

import numpy as np
import torch

from bench import machine
from bench.index.run import say
from corpus_teacher import CorpusTeacher, RemoteTeacher

MEASURES = ("latency", "endurance", "targets")


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
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


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


def _asking(url: str, **options: Any) -> subprocess.Popen[str]:
    """`bench.load` in a process of its own, which the server can't slow down, nor it the server's."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
    given += [f"--{name}" for name, value in options.items() if value is True]
    return subprocess.Popen([sys.executable, "-m", "bench.load", url, *given], stdout=subprocess.PIPE, text=True)


def _told(asking: subprocess.Popen[str]) -> dict[str, Any]:
    """What a load generator says in the end."""
    try:
        answer: dict[str, Any] = json.loads(asking.communicate(timeout=120)[0])
    finally:
        asking.kill()
    return answer


def processor_s(pid: int) -> float:
    """Processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency(index: Path, clients: int, requests: int, vocab_size: int) -> dict[str, Any]:
    """Milliseconds of single queries with that many clients at once, without each one's first fifth."""
    with server(index) as (url, pid):
        alone = _told(_asking(url, requests=1000, vocab_size=vocab_size))
        before = processor_s(pid)
        found = _told(_asking(url, clients=clients, requests=requests, vocab_size=vocab_size))
        processor_us = 1e6 * (processor_s(pid) - before) / requests
    took = np.concatenate([times[len(times) // 5 :] for times in found["took_ms"]])
    return {
        "clients": clients,
        "requests": requests,
        "p50_ms": float(np.percentile(took, 50)),
        "p99_ms": float(np.percentile(took, 99)),
        "alone_p50_ms": float(np.percentile(alone["took_ms"][0][200:], 50)),
        "requests_per_s": requests / found["wall_s"],
        "server_processor_us": processor_us,
        "errors": found["errors"] + alone["errors"],
    }


def endurance(index: Path, clients: int, requests: int, vocab_size: int) -> dict[str, Any]:
    """Many requests of all kinds, clients killed now and then."""
    rng = random.Random(0)
    with server(index) as (url, pid):
        _told(_asking(url, requests=200, vocab_size=vocab_size, mixed=True, seed=99))
        before, left, killed, errors, seed, memory = memory_bytes(pid), requests, 0, 0, 1000, []
        while left > 0:
            each = max(1, min(left, requests // 5) // clients)
            made = [
                _asking(url, requests=each, vocab_size=vocab_size, mixed=True, seed=seed + number)
                for number in range(clients)
            ]
            doomed = [made[number] for number in rng.sample(range(clients), max(1, clients // 8))]
            for one in doomed:
                time.sleep(0.2)  # in the middle of what they ask
                killed += one.poll() is None
                one.kill()
                one.communicate()
            errors += sum(_told(one)["errors"] for one in made if one not in doomed)
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


class _TooLongError(Exception):
    """The time is up."""


def _stop(*_: object) -> None:
    raise _TooLongError


def main() -> None:
    """Measure, print a table, and one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--queries", type=int, default=16_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--limit", type=int, default=240, help="seconds; what isn't measured by then isn't told")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    vocab_size = CorpusTeacher(given.index).vocab_size
    made: dict[str, Any] = {"machine": machine.describe(), "index": str(given.index.name)}
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(given.limit)
    try:
        _measure(given, vocab_size, made)
    except _TooLongError:
        say(f"{given.limit} s are over: {', '.join(set(given.only) - made.keys())} isn't told")
    signal.alarm(0)
    line = json.dumps(made)
    if given.out is not None:
        given.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def _measure(given: argparse.Namespace, vocab_size: int, made: dict[str, Any]) -> None:
    """Each measure in its turn, the shortest first."""
    if "latency" in given.only:
        made["latency"] = latency(given.index, given.clients, given.queries, vocab_size)
        say(
            "{clients} clients: p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms, {requests_per_s:,.0f} requests/s, {errors} "
            "errors; server {server_processor_us:.0f} us of processor a request; 1 client: p50 {alone_p50_ms:.2f} "
            "ms".format(**made["latency"])
        )
    if "endurance" in given.only:
        made["endurance"] = endurance(given.index, given.clients, given.requests, vocab_size)
        say(
            "{requests} requests, {killed} clients killed: {errors} errors, MiB {memory_mib}".format(
                **made["endurance"]
            )
        )
    if "targets" in given.only:
        made["targets"] = targets(given.index, given.rows, given.length, given.batches, given.runs)
        for name, one in made["targets"].items():
            say(f"{name:>28}: {one['targets_per_s']:>12,.0f} targets/s, {one['of_in_process']:.2f} of in process")


if __name__ == "__main__":
    main()
