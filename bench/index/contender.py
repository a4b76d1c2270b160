"""What every contender offers to the bench: build, open, timed runs, and answers for the judge."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bench.corpora import Corpus


class Rate(NamedTuple):
    """One timed run: positions a second of wall time, and its share of a core (1.0: undisturbed)."""

    positions_per_s: float
    cpu_share: float


class Answers(NamedTuple):
    """What a contender says at S sampled positions, in one form for all.

    match_len (S,) is −1 where it says nothing. counts (S,) holds the occurrences of the match, `separators`
    those that only a separator follows: an occurrence at the end of a document, which ours doesn't count. The
    continuations, without separators, are flat: offsets (S+1,), token_ids and token_counts (nnz,), ids
    ascending; empty in the section `match`.
    """

    match_len: np.ndarray
    counts: np.ndarray
    separators: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    token_counts: np.ndarray

    @classmethod
    def of(cls, entries: Iterable[tuple[int, int, int, np.ndarray, np.ndarray]]) -> Answers:
        """From one (match_len, count, separators, token_ids, token_counts) a position."""
        rows = list(entries)
        nothing = np.zeros(0, np.int64)
        return cls(
            match_len=np.array([row[0] for row in rows], np.int64),
            counts=np.array([row[1] for row in rows], np.int64),
            separators=np.array([row[2] for row in rows], np.int64),
            offsets=np.cumsum([0, *(len(row[3]) for row in rows)]).astype(np.int64),
            token_ids=np.concatenate([nothing, *(row[3] for row in rows)]).astype(np.int64),
            token_counts=np.concatenate([nothing, *(row[4] for row in rows)]).astype(np.int64),
        )


class Contender:
    """The base: a name, whether it is there, and no abilities."""

    name = ""
    distribution = ""  # on PyPI; also the key of its version
    module = ""
    is_ours = False
    build_cores: tuple[int, ...] = (1,)
    in_memory = False  # the index lives in the process that builds it
    sections: tuple[str, ...] = ()
    context_cap: int | None = None  # tokens of context that it is asked for; None: all of the row
    exact_up_to: int | None = None  # occurrences beyond which its distributions are approximate
    notes: ClassVar[dict[str, str]] = {}  # what a reader must know of its figures, by section

    def missing(self) -> str | None:
        """Why it can't take part, or None."""
        if importlib.util.find_spec(self.module) is None:
            return f"not installed (pip install {self.distribution})"
        return None

    def version(self) -> str:
        """Its version, as installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    def warm_up(self, folder: Path) -> None:
        """What must not count: compilation, imports."""

    def prepare(self, corpus: Corpus, folder: Path) -> None:
        """Brings the corpus into the form that its build reads; not timed."""

    def build(self, corpus: Corpus, folder: Path, cores: int) -> Any:
        """Builds, and is timed; returns the index where it lives in memory."""
        raise NotImplementedError

    def check_build(self, corpus: Corpus, built: Any) -> str | None:
        """What is wrong with what was built, where no query will tell; not timed."""
        return None

    def sizes(self, corpus: Corpus, folder: Path) -> dict[str, int]:
        """Bytes on disk by file, text included; by array, marked so, where it lives in memory."""
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}

    def open(self, corpus: Corpus, folder: Path) -> Any:
        """Opens what `build` left, and is timed."""
        raise NotImplementedError

    def rates(self, section: str, index: Any, rows: np.ndarray, *, runs: int, budget_s: float) -> list[Rate]:
        """Timed runs of one section over rows (R, T); about budget_s seconds in all."""
        raise NotImplementedError

    def answers(self, section: str, index: Any, rows: np.ndarray, sample: np.ndarray) -> Answers:
        """The answers at the sampled (row, t) pairs, shape (S, 2), sorted; by the code that `rates` times."""
        raise NotImplementedError


def timed_runs(step: Callable[[Any], int], items: Iterator[Any], *, runs: int, budget_s: float) -> list[Rate]:
    """Steps through the items for budget_s / runs seconds a run; a step returns how many positions it did."""
    rates = []
    for _ in range(runs):
        done, started, started_cpu = 0, time.perf_counter(), time.process_time()
        while (took := time.perf_counter() - started) < budget_s / runs:
            done += step(next(items))
        rates.append(Rate(done / took, (time.process_time() - started_cpu) / took))
    return rates


def random_contexts(
    rows: np.ndarray, *, shortest: int, longest: int, limit: int = 50_000, seed: int = 0
) -> Iterator[list[int]]:
    """Contexts of `shortest` to `longest` tokens at random positions, for ever; made beforehand."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(rows.shape[0] * (rows.shape[1] - shortest + 1))[:limit]
    places = ((c // (rows.shape[1] - shortest + 1), c % (rows.shape[1] - shortest + 1)) for c in chosen.tolist())
    contexts = [rows[row, max(0, last + shortest - longest) : last + shortest].tolist() for row, last in places]
    return cycle(contexts)
