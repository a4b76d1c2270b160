"""Readers and writers at once: every answer is compared with that of one thread on the version that was opened.

One process changes an index again and again: builds it in place of another, appends, removes, merges. Beside it
readers, half of them forked and half spawned, open what stands at the path, ask it from several threads at once, keep
some of what they opened while it is replaced, and close it. Each state of the index was built once before, in a folder
of its own, and asked by one thread: a reader knows by the text and the number of shards which state it has opened.

At its end a reader counts its descriptors and its maps of files of the index: none may be left.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import pickle
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import (
    CorpusIndex,
    CorpusIndexError,
    append_documents,
    build_index,
    merge_shards,
    open_index,
    remove_documents,
)

from bench.trust.flips import plain, small_corpus

THREADS, READERS = 16, 8
_ROUNDS = 3  # questions to an index that is kept open
_KERNELS_LOCK = ".kernels.lock"  # opened once by a process that compiles, and kept

Expected = dict[str, dict[str, str]]


def changes() -> list[tuple[str, Callable[[Path], CorpusIndex]]]:
    """What the writer does, in turn, for ever; each is the same at every turn."""
    corpora = [small_corpus(seed, wide=False) for seed in (0, 1)]
    more = np.array([1, 2, 3, 4, 5, 0] * 50, np.uint16)

    def build(number: int) -> Callable[[Path], CorpusIndex]:
        return lambda path: build_index(path=path, overwrite=True, workers=1, **corpora[number])

    def append(path: Path) -> CorpusIndex:
        return append_documents(path, more, doc_starts=np.arange(0, more.size + 1, 6), workers=1)

    return [
        ("build", build(0)),
        ("append", append),
        ("remove", lambda path: remove_documents(path, [2, 40], workers=1)),
        ("merge", lambda path: merge_shards(path, workers=1)),
        ("replace", build(1)),
        ("append", append),
    ]


def key_of(index: CorpusIndex) -> str:
    """Which state an opened index is: its text, its documents, its shards."""
    told = np.asarray(index.tokens).tobytes() + np.asarray(index.doc_starts).tobytes()
    return f"{hashlib.sha256(told).hexdigest()} in {len(getattr(index, 'shards', [0]))}"


def questions(index: CorpusIndex) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and question."""
    tokens = np.asarray(index.tokens)
    places = np.arange(200, len(tokens) - 100, len(tokens) // 6).astype(np.int64)
    rows = np.stack([tokens[place : place + 33] for place in places]).astype(np.int64)
    given, labels = rows[:, :-1], rows[:, 1:]
    yield "count", lambda: [index.count(row[:3]) for row in rows]
    yield "positions", lambda: sorted(np.asarray(index.positions(rows[0, 2:4])).tolist())
    yield "next_tokens", lambda: index.next_tokens(rows[1, :5])
    yield "match", lambda: index.match(given)
    yield "score", lambda: index.next_probabilities(given, labels, leave_out="self")
    yield "targets", lambda: index.smoothed_targets(given, labels, leave_out="self", top_k=1000, shortlist=None)
    yield (
        "without the document",
        lambda: index.next_probabilities(given, labels, leave_out="document", positions=places),
    )


def answers(index: CorpusIndex, order: random.Random | None = None) -> dict[str, str]:
    """A hash of each answer; the questions are put in order, or in a random one."""
    asked = list(questions(index))
    if order is not None:
        order.shuffle(asked)
    return {name: hashlib.sha256(pickle.dumps(plain(question()))).hexdigest() for name, question in asked}


def expected_answers(folder: Path) -> Expected:
    """What one thread is told in each state."""
    found: Expected = {}
    for _, change in changes():
        change(folder / "alone").close()
        with open_index(folder / "alone") as index:
            found[key_of(index)] = answers(index)
    return found


def left_of(path: Path) -> tuple[int, int]:
    """This process's descriptors, and its maps of files in the folder of an index."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    opened = []
    for one in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # of the listing itself
            opened.append(os.readlink(f"/proc/self/fd/{one}"))
    opened = [one for one in opened if not one.endswith(_KERNELS_LOCK)]
    return len(opened), sum(str(path.parent) in line for line in maps)


def read(path: Path, expected: Expected, until: float, seed: int, threads: int, told: Path) -> None:
    """A reader: opens, asks, compares and closes until the clock says so; tells its counts."""
    counts: Counter[str] = Counter()
    order = random.Random(seed)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: time.sleep(0.05), range(threads)))  # all are there
        before = left_of(path)
        begun = False
        while not begun or time.time() < until:
            begun = True
            try:
                with open_index(path) as index:
                    counts["opened"] += 1
                    for _ in range(order.randint(1, _ROUNDS)):
                        _ask(index, expected, order, pool, threads, counts)
            except CorpusIndexError as error:
                counts["refused"] += 1
                counts[f"refused: {error}".replace(str(path.parent), ".")[:200]] += 1
            except Exception as error:
                counts["exceptions"] += 1
                counts[f"{type(error).__name__}: {error}".replace(str(path.parent), ".")[:200]] += 1
        index = None
        after = left_of(path)
    counts["descriptors_left"] += max(0, after[0] - before[0])
    counts["maps_left"] += after[1]
    told.write_text(json.dumps(counts))


def _ask(
    index: CorpusIndex,
    expected: Expected,
    order: random.Random,
    pool: ThreadPoolExecutor,
    threads: int,
    counts: Counter[str],
) -> None:
    right = expected.get(key_of(index))
    if right is None:
        counts["wrong"] += 1
        counts["unknown state"] += 1
        return
    seeds = [order.random() for _ in range(threads)]
    for found in pool.map(lambda seed: answers(index, random.Random(seed)), seeds):
        counts["answers"] += len(found)
        for name, value in found.items():
            if value != right[name]:
                counts["wrong"] += 1
                counts[f"wrong: {name}"] += 1


def write(path: Path, until: float, told: Path) -> None:
    """The writer: changes the index until the clock says so; tells its counts."""
    counts: Counter[str] = Counter()
    while not counts or time.time() < until:
        for name, change in changes():
            try:
                change(path).close()
                counts["changes"] += 1
                counts[f"changes: {name}"] += 1
            except Exception as error:
                counts["exceptions"] += 1
                counts[f"{name}: {type(error).__name__}: {error}".replace(str(path.parent), ".")[:200]] += 1
            if time.time() >= until:
                break
    told.write_text(json.dumps(counts))


def campaign(seconds: float, *, readers: int = READERS, threads: int = THREADS) -> dict[str, Any]:
    """The counts of all readers and the writer."""
    fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="load-") as folder, tempfile.TemporaryDirectory() as told_in:
        path = Path(folder) / "index"
        expected = expected_answers(Path(folder))
        changes()[0][1](path).close()
        told = [Path(told_in) / f"{number}.json" for number in range(readers + 1)]
        until, made = time.time() + seconds, []
        for number in range(readers):
            context: Any = fork if number % 2 else spawn
            made.append(context.Process(target=read, args=(path, expected, until, number, threads, told[number])))
        made.append(fork.Process(target=write, args=(path, until, told[-1])))
        for one in made:
            one.start()
        total: Counter[str] = Counter()
        for one in made:
            one.join(seconds + 300)
            total["died"] += one.exitcode != 0
            if one.exitcode is None:
                one.kill()
        for file in told:
            total.update(json.loads(file.read_text()) if file.exists() else {})
        left = sorted(name for name in os.listdir(folder) if name not in ("index", "alone"))
    counted = (
        "opened",
        "answers",
        "wrong",
        "refused",
        "exceptions",
        "died",
        "changes",
        "descriptors_left",
        "maps_left",
    )
    return {
        "seconds": seconds,
        "readers": readers,
        "threads": threads,
        **{name: total[name] for name in counted},
        "left": left,
        "more": {name: count for name, count in sorted(total.items()) if name not in counted},
    }
