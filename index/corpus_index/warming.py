"""Kernels compiled ahead: `warm_up`, and what the processes of `compile_beside` do.

Which kernels, and for which types of arguments, no list says: a tiny corpus is indexed and asked with all kernels
interpreted (`jit.recorded`), and what was called, and with which types, is what others will call.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from corpus_index import build
from corpus_index._kernels import jit
from corpus_index._kernels.cache_folder import cache_folder
from corpus_index._kernels.target_arrays import GoneRows
from corpus_index.arpa import write_arpa
from corpus_index.build import build_index
from corpus_index.core.duplicates import copied_shares, near_duplicates
from corpus_index.estimators.estimator import make_estimator
from corpus_index.index import CorpusIndex
from corpus_index.shard_changes import convert_index
from corpus_index.targets import request
from corpus_index.targets.drawing import draw_from, draw_tokens, sorted_base
from corpus_index.targets.measures import measure
from corpus_index.targets.recall import fit_recall
from corpus_index.targets.references import References
from corpus_index.verify import verify_index

Job = tuple[str, str, Any]
"""A kernel's module and name, and the types of its arguments."""

_NARROW, _WIDE = 300, 65_600  # vocabularies of 16 and of 32 bits, the latter even of a corpus of 40 tokens


class Warmed(NamedTuple):
    """What `warm_up` did.

    Attributes
    ----------
    compiled : int
        Kernels (of some argument types each) that weren't cached before.
    cached : int
        Those that were.
    seconds : float
    folder : str
        Where the compiled kernels are.
    """

    compiled: int
    cached: int
    seconds: float
    folder: str


def warm_up(*, workers: int | None = None, wide: bool = True, compact: bool = False) -> Warmed:
    """Compile the kernels of all that an index is asked for, so that no later first call waits.

    Parameters
    ----------
    workers : int, optional
        Processes; default: the processors that this process may use.
    wide : bool
        Also for vocabularies above 65,536, which have kernels of their own: twice the time.
    compact : bool
        Also for compact indexes, which have kernels of their own: twice the time. Without, their first calls wait.

    Returns
    -------
    Warmed

    Notes
    -----
    Some minutes of one processor for each width and layout, shared by the workers; seconds where all is there already.
    Compiled kernels are kept in NUMBA_CACHE_DIR, or beside the package, or in the user's cache folder, whichever can be
    written first, and are compiled anew after an upgrade.
    """
    begin = time.perf_counter()
    workers = workers or jit.processors()
    jobs, missing = list[Job](), list[Job]()
    threads, queue = list[Thread](), SimpleQueue[Job | None]()
    for width in range(1 + wide):
        others = [job for job in all_jobs(bool(width), compact) if job not in jobs]
        jobs += others
        new = [job for job in others if not _is_cached(job)]
        new.sort(key=lambda job: job[1] not in _LARGEST)
        missing += new
        if workers > 1:
            for job in new:
                queue.put(job)
            while len(threads) < min(workers, len(missing)):  # they compile while the next width is looked up
                threads.append(Thread(target=_in_process, args=(queue,)))
                threads[-1].start()
    for _ in threads:
        queue.put(None)
    for thread in threads:
        thread.join()
    for job in missing:  # what no other process did
        if not _is_cached(job):
            _compile(job)
    return Warmed(len(missing), len(jobs) - len(missing), time.perf_counter() - begin, str(cache_folder()))


def _in_process(queue: SimpleQueue[Job | None]) -> None:
    """Let another process compile jobs of a queue, one after the other, until None comes or the process ends."""
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", "from corpus_index.warming import compile_given; compile_given()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, jit.CHILD: "1", "PYTHONPATH": path},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(OSError):
            while (job := queue.get()) is not None:
                child.stdin.write(pickle.dumps(job))
                child.stdin.flush()
                if not child.stdout.readline():
                    break


def compile_given() -> None:
    """A process of `warm_up`: compile what is read, and write a line after each."""
    with suppress(EOFError):
        while True:
            job = pickle.load(sys.stdin.buffer)
            if not _is_cached(job):
                _compile(job)
            sys.stdout.write("\n")
            sys.stdout.flush()


_LARGEST = ("mixed_targets", "exclusion_targets", "evidence", "flat_targets", "match_rows")


def compile_named(group: str, wide: str, *parts: str) -> None:
    """What a process of `jit.compile_beside` does, a little behind the one that asks, which may not wait for it.

    parts: names of kernels, with commas. For each part but the first it forks, when all that takes seconds has been
    imported once.
    """
    with suppress(OSError, AttributeError):  # Windows
        os.nice(5)
    jobs = jobs_of(group, wide == "1")
    _kernel(jobs[0]).targetctx.refresh()
    part, *others = parts
    while others and os.fork() != 0:
        part = others.pop()
    for name in part.split(","):
        _compile(next(job for job in jobs if job[1] == name))  # of its forms the one that is called first


def _kernel(job: Job) -> Any:
    return getattr(importlib.import_module(job[0]), job[1])


def _is_cached(job: Job) -> bool:
    return bool(_kernel(job).is_cached(job[2]))


def _compile(job: Job) -> None:
    _kernel(job).compile(job[2])


def jobs_of(group: str, wide: bool) -> list[Job]:
    """The kernels that a group's work calls, in that order."""
    return _recorded([group], wide)


def all_jobs(wide: bool, compact: bool = False) -> list[Job]:
    """The kernels that the work of any group calls; those of the compact layout only where it is asked."""
    return _recorded([group for group in GROUPS if compact or group != "compact"], wide)


def _recorded(groups: Sequence[str], wide: bool) -> list[Job]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # kernels count on integers that wrap
        with jit.recorded() as calls:
            path = Path(folder) / "index"
            rng = np.random.default_rng(0)
            vocab_size = _WIDE if wide else _NARROW
            tokens = rng.integers(0, 20, 600)
            with build_index(tokens, path, doc_starts=_starts(tokens.size), vocab_size=vocab_size, workers=1) as index:
                before = 0 if "build" in groups else len(calls)
                for group in groups:
                    GROUPS[group](index)
        return list(dict.fromkeys(calls[before:]))


def _starts(size: int) -> np.ndarray:
    return np.append(np.arange(0, size, 40), size)


def _batch(index: CorpusIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the corpus, the tokens that follow, and where the rows begin."""
    positions = np.array([3, 90])
    places = positions[:, None] + np.arange(12)
    tokens = np.asarray(index.tokens).astype(np.int64)
    return tokens[places], tokens[places + 1], positions


def _nothing(index: CorpusIndex) -> None:
    """Building alone."""


@contextmanager
def _with(module: ModuleType, **values: Any) -> Iterator[None]:
    """Other constants of a module for a while: what large indexes come to, for a tiny one."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)


def as_if_large() -> AbstractContextManager[None]:
    """Build small corpora as large ones are, in all of this process: for who asks which kernels those call."""
    return _with(build, _SLICE=16, _LARGE=0, _DENSE=1e9)


def _large(index: CorpusIndex) -> None:
    """Building what is sorted and cut as a large corpus is; repeats of repeats are sorted by recursion."""
    tokens = np.tile(index.tokens[:80], 8)
    with tempfile.TemporaryDirectory() as folder, as_if_large():
        options: dict[str, Any] = {"doc_starts": _starts(tokens.size), "vocab_size": index.vocab_size}
        build_index(tokens, f"{folder}/large", workers=2, **options).close()


def _query(index: CorpusIndex) -> None:
    context = index.tokens[:3].astype(np.int64)
    index.next_tokens(context)
    index.count(context)
    index.explain(context, estimator="witten-bell", max_order=4)


def _targets(index: CorpusIndex) -> None:
    ids, following, _ = _batch(index)
    for estimator in ("witten-bell", "modified-kneser-ney"):
        index.smoothed_targets(ids, following, estimator=estimator, max_order=4, leave_out="self", top_k=4)
        index.next_probabilities(ids, following, estimator=estimator, max_order=4)


def _documents(index: CorpusIndex) -> None:
    ids, following, positions = _batch(index)
    request.more_room(GoneRows.empty(1, 1, False))
    with _with(request, _LONG=8):
        for estimator in ("witten-bell", "modified-kneser-ney"):
            options: dict[str, Any] = {"estimator": estimator, "max_order": 4}
            options |= {"leave_out": "document", "positions": positions}
            index.smoothed_targets(ids, following, top_k=4, **options)
            index.next_probabilities(ids, following, **options)
            index.mixed_targets(ids, following, **options)


def _whole(index: CorpusIndex) -> None:
    ids, following, positions = _batch(index)
    rng = np.random.default_rng(0)
    left_out: tuple[dict[str, Any], ...] = ({}, {"leave_out": "document", "positions": positions})
    for options in left_out:
        index.smoothed_targets(ids, following, max_order=4, top_k=4, shortlist=None, **options)
        index.sampled_targets(ids, following, max_order=4, draws=2, seed=0, **options)
    for estimator in ("witten-bell", "modified-kneser-ney"):
        draw_tokens(index, ids, rng, estimator=estimator, max_order=4)
        measure(index, ids[:, :4], estimator=estimator, max_order=4)
    targets = index.smoothed_targets(ids, max_order=4, top_k=4)
    draw_from(targets, sorted_base(targets.base, 1.5), rng, top_k=3, top_p=0.9)


def _exclusion(index: CorpusIndex) -> None:
    ids, following, positions = _batch(index)
    left_out: tuple[dict[str, Any], ...] = ({"leave_out": "self"}, {"leave_out": "document", "positions": positions})
    for options in left_out:
        index.smoothed_targets(ids, following, estimator="katz", max_order=4, top_k=4, **options)
        index.next_probabilities(ids, following, estimator="katz", max_order=4, **options)
    index.backoff_scores(ids, following, max_order=4)


@contextmanager
def _part(index: CorpusIndex) -> Iterator[CorpusIndex]:
    """A small part: fits go through their evidence hundreds of times."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"doc_starts": np.array([0, 20, 40]), "vocab_size": index.vocab_size, "workers": 1}
        options["layout"] = index.layout
        with build_index(index.tokens[:40], f"{folder}/part", **options) as part:
            yield part


def _fit(index: CorpusIndex) -> None:
    with _part(index) as part:
        for name in ("auto", "jelinek-mercer", "pitman-yor", "modified-kneser-ney", "katz"):
            part.fitted(name, 3)


def _recall(index: CorpusIndex) -> None:
    with _part(index) as part:
        ids = np.asarray(part.tokens).astype(np.int64).reshape(2, 20)
        recall = fit_recall(part, "witten-bell", 3)
        recall.next_probabilities(part, ids, np.roll(ids, -1, axis=1))
        recall.smoothed_targets(part, ids)


def _near_duplicates(index: CorpusIndex) -> None:
    near_duplicates(index)
    copied_shares(index, 8)


def _files(index: CorpusIndex) -> None:
    for full in (False, True):
        verify_index(index.path, full=full)
    with tempfile.TemporaryDirectory() as folder:
        write_arpa(index, make_estimator("modified-kneser-ney", 3), f"{folder}/model.arpa")


def _texts(index: CorpusIndex) -> None:
    index.scorer("modified-kneser-ney", 3).probabilities(_batch(index)[0])


def _losses(_: CorpusIndex) -> None:
    """What losses of targets in mixed form ask of the rows."""
    one, values = np.zeros(1, np.int64), np.ones((1, 2), np.float32)
    references = References(
        np.zeros(1, np.int32), np.ones(1, np.float32), one, one + 1, np.ones((1, 4), np.float32), one
    )
    references.add_expectations(values, 0, values[0, :1])
    references.subtract(values[0, :1], 0, values)


def _compact(index: CorpusIndex) -> None:
    """All of it of the other layout, whose arrays are of other types."""
    with tempfile.TemporaryDirectory() as folder:
        with convert_index(index.path, "compact", out=f"{folder}/compact") as compact:
            for ask in (
                _query,
                _targets,
                _documents,
                _whole,
                _exclusion,
                _fit,
                _recall,
                _near_duplicates,
                _files,
                _texts,
            ):
                ask(compact)
            compact.positions(compact.tokens[:1].astype(np.int64))
        convert_index(f"{folder}/compact", "full", out=f"{folder}/full").close()


def _shards(index: CorpusIndex) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "doc_starts": _starts(index.num_tokens),
            "vocab_size": index.vocab_size,
            "workers": 1,
        }
        half = index.num_tokens // 2 + 40
        with _with(build, _LIGHT=2):
            shards = build_index(index.tokens, f"{folder}/shards", shard_tokens=half, **options)
        with shards:
            _targets(shards)
            _documents(shards)
            _exclusion(shards)


GROUPS: dict[str, Callable[[CorpusIndex], None]] = {
    "build": _nothing,
    "large": _large,
    "query": _query,
    "targets": _targets,
    "documents": _documents,
    "whole": _whole,
    "exclusion": _exclusion,
    "fit": _fit,
    "recall": _recall,
    "near-duplicates": _near_duplicates,
    "files": _files,
    "texts": _texts,
    "losses": _losses,
    "shards": _shards,
    "compact": _compact,
}
"""What an index is asked for, by name."""
