"""Ours: corpus_index through its public calls, whole (B, T) batches at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpora import Corpus
from bench.index.contender import Answers, Contender, Rate
from bench.timing import one_and_two, pass_rates

BATCH_ROWS = 64
"""B: rows a call; T is that of the rows."""


class Ours(Contender):
    """corpus_index."""

    name = "corpus_index"
    distribution = "corpus-teacher"
    module = "corpus_index"
    is_ours = True
    layout = "full"
    shards = 1  # that are asked for: the ends of documents often make one more
    build_cores = (2, 1)
    sections = ("match", "continuations", "order4")

    def missing(self) -> str | None:
        """See Contender; a checkout that isn't installed needs its index/ folder on PYTHONPATH."""
        try:
            from corpus_index import CorpusIndex, build_index  # noqa: F401
        except ImportError as error:
            return f"not importable ({error})"
        return None

    def version(self) -> str:
        """See Contender."""
        version = super().version()
        return "from the checkout" if version == "unknown" else version

    def warm_up(self, folder: Path) -> None:
        """Compiles every kernel that the bench uses, on 4,096 tokens: compilation is in no figure."""
        from corpus_index import build_index

        generator = np.random.default_rng(0)
        tokens = generator.integers(0, 300, size=4096).astype(np.uint16)
        starts = np.array([0, 1000, 4096])
        for workers in self.build_cores:
            build_index(
                tokens,
                folder / "warm",
                doc_starts=starts,
                vocab_size=300,
                overwrite=True,
                workers=workers,
                layout=self.layout,
            ).close()
        with self.open_path(folder / "warm") as index:
            rows = np.ascontiguousarray(tokens[:512].reshape(4, 128)).astype(np.int64)
            for section in self.sections:
                self._call(section, index, rows)

    def build(self, corpus: Corpus, folder: Path, cores: int) -> None:
        """See Contender."""
        from corpus_index import build_index

        build_index(
            corpus.tokens,
            folder / "index",
            doc_starts=corpus.doc_starts,
            vocab_size=corpus.vocab_size,
            overwrite=True,
            workers=cores,
            layout=self.layout,
            shard_tokens=-(-corpus.num_tokens // self.shards),
        ).close()

    def sizes(self, corpus: Corpus, folder: Path) -> dict[str, int]:
        """See Contender."""
        return super().sizes(corpus, folder / "index")

    @staticmethod
    def open_path(path: Path) -> Any:
        """The index of a folder."""
        from corpus_index import CorpusIndex

        return CorpusIndex.open(path)

    def open(self, corpus: Corpus, folder: Path) -> Any:
        """See Contender."""
        return self.open_path(folder / "index")

    @staticmethod
    def _call(section: str, index: Any, rows: np.ndarray) -> Any:
        if section == "match":
            return index.match(rows)
        return index.next_tokens_batch(rows, max_order=4 if section == "order4" else None)

    def _pass(self, section: str, index: Any, rows: np.ndarray) -> None:
        for first in range(0, len(rows), BATCH_ROWS):
            self._call(section, index, rows[first : first + BATCH_ROWS])

    def rates(self, section: str, index: Any, rows: np.ndarray, *, runs: int, budget_s: float) -> list[Rate]:
        """See Contender: a run is one pass over all rows, or as many as its share of the budget holds."""
        least_s = budget_s / runs / 4
        return pass_rates(lambda: self._pass(section, index, rows), rows.size, runs=max(runs, 5), least_s=least_s)

    def thread_rates(self, section: str, index: Any, rows: np.ndarray, *, runs: int) -> tuple[list[Rate], list[Rate]]:
        """One Python thread over all rows, and two over half each, in turns: (one's rates, two's rates)."""
        halves = [partial(self._pass, section, index, part) for part in np.array_split(rows, 2)]
        return one_and_two(partial(self._pass, section, index, rows), halves, rows.size, runs=max(runs, 5))

    def answers(self, section: str, index: Any, rows: np.ndarray, sample: np.ndarray) -> Answers:
        """See Contender: read off the answer for whole rows, as the timed code asks."""
        numbers = np.unique(sample[:, 0])
        answer = self._call(section, index, rows[numbers])
        match = answer if section == "match" else answer.match
        entries = []
        for row, t in sample.tolist():
            place = int(np.searchsorted(numbers, row))
            match_len, count = int(match.match_len[place, t]), int(match.hi[place, t] - match.lo[place, t])
            token_ids = token_counts = np.zeros(0, np.int64)
            if section != "match":
                token_ids, token_counts, _, _ = answer.at(place, t)
            entries.append((match_len, count, 0, token_ids, token_counts))
        return Answers.of(entries)


class Compact(Ours):
    """corpus_index, in the compact layout; its build is that of the full one, made compact."""

    name = "compact"
    layout = "compact"


class Shards(Ours):
    """corpus_index, cut into shards that are built one after the other: for what memory doesn't hold at once."""

    name = "shards"
    build_cores = (1,)
    shards = 4

    def sizes(self, corpus: Corpus, folder: Path) -> dict[str, int]:
        """See Contender; the sum over the shards by file."""
        sizes: dict[str, int] = {}
        for file in sorted((folder / "index").rglob("*")):
            if file.is_file():
                sizes[file.name] = sizes.get(file.name, 0) + file.stat().st_size
        return sizes

    @staticmethod
    def open_path(path: Path) -> Any:
        """See Ours."""
        from corpus_index import open_index

        return open_index(path)
