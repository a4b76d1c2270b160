"""The peers that answer queries, tokengrams, infini-gram, rusty-dawg, by the calls that their users have.

All index `doc SEP doc SEP …`. None has a batch call that is worth it (measured: bench/LOG.md), so a loop in
Python asks position by position, which is what their users can do.
"""

from __future__ import annotations

import array
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.corpora import SEPARATOR, Corpus
from bench.index.contender import Answers, Contender, Rate, random_contexts, timed_runs

NOTHING = np.zeros(0, np.int64)
CAP = 64


def split_separator(token_ids: np.ndarray, counts: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """(occurrences that a separator follows, the other ids, their counts)."""
    kept = token_ids != SEPARATOR
    return int(counts[~kept].sum()), token_ids[kept], counts[kept]


class ContextPeer(Contender):
    """A peer that takes one context a call, as a list of ids, in any order."""

    context_cap = CAP
    sections = ("match", "continuations", "order4")

    def longest(self, index: Any, context: list[int]) -> tuple[int, int]:
        """Length of the longest suffix that occurs, and its count where the call gives one, else −1."""
        raise NotImplementedError

    def count(self, index: Any, ngram: list[int]) -> int:
        """Occurrences of an n-gram, separators allowed."""
        raise NotImplementedError

    def longest_continuations(self, index: Any, context: list[int]) -> tuple[int, np.ndarray, np.ndarray]:
        """Length of the longest match, its continuations and their counts, as arrays, separators included."""
        raise NotImplementedError

    def continuations(self, index: Any, context: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Continuations and counts of exactly this context, as arrays, separators included."""
        raise NotImplementedError

    def rates(self, section: str, index: Any, rows: np.ndarray, *, runs: int, budget_s: float) -> list[Rate]:
        """See Contender."""
        call = {
            "match": self.longest,
            "continuations": self.longest_continuations,
            "order4": self.continuations,
        }[section]
        shortest, longest = (4, 4) if section == "order4" else (1, CAP)
        contexts = random_contexts(rows, shortest=shortest, longest=longest)

        def step(context: list[int]) -> int:
            call(index, context)
            return 1

        return timed_runs(step, contexts, runs=runs, budget_s=budget_s)

    def answers(self, section: str, index: Any, rows: np.ndarray, sample: np.ndarray) -> Answers:
        """See Contender."""
        entries = []
        for row, t in sample.tolist():
            longest = 4 if section == "order4" else CAP
            context = rows[row, max(0, t + 1 - longest) : t + 1].tolist()
            if section == "match":
                match_len, count = self.longest(index, context)
                suffix = context[len(context) - match_len :]
                count = self.count(index, suffix) if count < 0 else count
                entries.append((match_len, count, self.count(index, [*suffix, SEPARATOR]), NOTHING, NOTHING))
                continue
            if section == "continuations":
                match_len, token_ids, counts = self.longest_continuations(index, context)
            else:
                token_ids, counts = self.continuations(index, context)
                match_len = len(context) if len(context) == 4 and len(token_ids) else -1
            separators, token_ids, token_counts = split_separator(token_ids, counts)
            entries.append((match_len, int(counts.sum()), separators, token_ids, token_counts))
        return Answers.of(entries)


class Tokengrams(ContextPeer):
    """EleutherAI/tokengrams: a suffix array of u64 in a memory map; no longest match, so we bisect."""

    name = distribution = module = "tokengrams"
    build_cores = (1, 2)
    notes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("match", "continuations"), "bisection over `contains`, contexts of 64"
    )

    def build(self, corpus: Corpus, folder: Path, cores: int) -> None:
        """See Contender."""
        from tokengrams import MemmapIndex

        MemmapIndex.build(str(corpus.separated_path), str(folder / "tokengrams.idx"), vocab=SEPARATOR + 1)

    def sizes(self, corpus: Corpus, folder: Path) -> dict[str, int]:
        """See Contender."""
        return {**super().sizes(corpus, folder), "tokens": corpus.separated_path.stat().st_size}

    def open(self, corpus: Corpus, folder: Path) -> Any:
        """See Contender."""
        from tokengrams import MemmapIndex

        return MemmapIndex(str(corpus.separated_path), str(folder / "tokengrams.idx"), vocab=SEPARATOR + 1)

    def longest(self, index: Any, context: list[int]) -> tuple[int, int]:
        """See ContextPeer; the count is left out of the timed call, because `count` copies all positions."""
        # A suffix occurs if the next longer one does: bisect after doubling.
        size, low, high = len(context), 0, 1
        while high <= size and index.contains(context[size - high :]):
            low, high = high, high * 2
        high = min(high, size + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if index.contains(context[size - middle :]):
                low = middle
            else:
                high = middle
        return low, -1

    def count(self, index: Any, ngram: list[int]) -> int:
        """See ContextPeer."""
        return index.count(ngram)

    def longest_continuations(self, index: Any, context: list[int]) -> tuple[int, np.ndarray, np.ndarray]:
        """See ContextPeer."""
        match_len, _ = self.longest(index, context)
        return match_len, *self.continuations(index, context[len(context) - match_len :])

    def continuations(self, index: Any, context: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """See ContextPeer."""
        dense = np.array(index.count_next(context), dtype=np.int64)
        token_ids = np.flatnonzero(dense)
        return token_ids, dense[token_ids]


class InfiniGram(ContextPeer):
    """liujch1998/infini-gram: a suffix array of bytes in a memory map; samples above max_support."""

    name = distribution = "infini-gram"
    module = "infini_gram"
    build_cores = (1, 2)
    exact_up_to = 1000
    notes: ClassVar[dict[str, str]] = {
        "match": "contexts of 64",
        "continuations": "contexts of 64, approximate above 1,000 occurrences",
        "order4": "approximate above 1,000 occurrences",
    }

    def prepare(self, corpus: Corpus, folder: Path) -> None:
        """Its own layout: a separator first, and the byte offset of each document's separator."""
        separated = corpus.separated
        with open(folder / "tokenized.0", "wb") as file:
            np.array([SEPARATOR], np.uint16).tofile(file)
            np.asarray(separated).tofile(file)
        (2 * (corpus.doc_starts[:-1] + np.arange(corpus.num_documents))).astype(np.uint64).tofile(folder / "offset.0")

    def build(self, corpus: Corpus, folder: Path, cores: int) -> None:
        """See Contender."""
        memory_gib = max(1, int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 * 0.7))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        options = {
            "data_dir": folder,
            "save_dir": folder,
            "temp_dir": folder / "temp",
            "cpus": cores,
            "mem": memory_gib,
            "ulimit": files,
        }
        command = [sys.executable, "-m", "infini_gram.indexing", "--token_dtype", "u16"]
        subprocess.run([*command, *(str(part) for k, v in options.items() for part in (f"--{k}", v))], check=True)
        shutil.rmtree(folder / "temp", ignore_errors=True)
        if not (folder / "table.0").exists():
            raise RuntimeError("infini_gram.indexing left no table")

    def open(self, corpus: Corpus, folder: Path) -> Any:
        """See Contender."""
        from infini_gram.engine import InfiniGramEngine

        no_prefetch = {"ds_prefetch_depth": 0, "sa_prefetch_depth": 0, "od_prefetch_depth": 0}
        # The id that it takes for the end of text can't be queried; one that no row holds.
        return InfiniGramEngine(
            index_dir=str(folder),
            eos_token_id=SEPARATOR - 1,
            vocab_size=SEPARATOR,
            token_dtype="u16",
            **no_prefetch,
        )

    def longest(self, index: Any, context: list[int]) -> tuple[int, int]:
        """See ContextPeer."""
        answer = index.infgram_prob(prompt_ids=context, cont_id=context[0])
        return answer["suffix_len"], answer["prompt_cnt"]

    def count(self, index: Any, ngram: list[int]) -> int:
        """See ContextPeer."""
        return index.count(input_ids=ngram)["count"]

    def longest_continuations(self, index: Any, context: list[int]) -> tuple[int, np.ndarray, np.ndarray]:
        """See ContextPeer."""
        answer = index.infgram_ntd(prompt_ids=context, max_support=self.exact_up_to)
        return answer["suffix_len"], *self._arrays(answer)

    def continuations(self, index: Any, context: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """See ContextPeer."""
        return self._arrays(index.ntd(prompt_ids=context, max_support=self.exact_up_to))

    @staticmethod
    def _arrays(answer: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        # The separator comes back under the name of the end of text.
        by_token = sorted((token, entry["cont_cnt"]) for token, entry in answer["result_by_token_id"].items())
        pairs = np.array(by_token, np.int64).reshape(-1, 2)
        return np.where(pairs[:, 0] == SEPARATOR - 1, SEPARATOR, pairs[:, 0]), pairs[:, 1]


class RustyDawg(Contender):
    """viking-sudo-rm/rusty-dawg: a compact suffix automaton in memory; walks a stream token by token."""

    name = distribution = "rusty-dawg"
    module = "rusty_dawg"
    in_memory = True
    sections = ("match", "continuations")
    notes: ClassVar[dict[str, str]] = {
        "build": "in memory",
        "match": "in stream order",
        "continuations": "in stream order",
    }

    def build(self, corpus: Corpus, folder: Path, cores: int) -> Any:
        """See Contender; an array of u16 instead of a list spares it 3 GB of Python ints."""
        from rusty_dawg import Cdawg

        cdawg = Cdawg(array.array("H", corpus.separated.tobytes()))
        cdawg.build()
        cdawg.fill_counts()
        return cdawg

    def sizes(self, corpus: Corpus, folder: Path) -> dict[str, int]:
        """See Contender."""
        return {}

    def _walk(self, index: Any, row: list[int], section: str) -> Iterator[tuple[Any, int, int]]:
        state = index.get_initial()
        for token in row:
            state = index.transition_and_count(state, token)
            if section == "match":
                yield state, state.get_length(), index.get_suffix_count(state)
            else:
                yield state, state.get_length(), index.get_next_tokens(state)

    def rates(self, section: str, index: Any, rows: np.ndarray, *, runs: int, budget_s: float) -> list[Rate]:
        """See Contender."""
        lists = [row.tolist() for row in rows[np.random.default_rng(0).permutation(len(rows))]]
        chunk = 64 if section == "continuations" else rows.shape[1]  # so that a slow section keeps to its budget
        walk: Iterator[Any] = iter(())

        def stream() -> Iterator[Any]:
            for row in cycle(lists):
                yield from self._walk(index, row, section)

        walk = stream()

        def step(_: None) -> int:
            for _ in range(chunk):
                next(walk)
            return chunk

        return timed_runs(step, cycle([None]), runs=runs, budget_s=budget_s)

    def answers(self, section: str, index: Any, rows: np.ndarray, sample: np.ndarray) -> Answers:
        """See Contender."""
        entries = []
        for row in np.unique(sample[:, 0]).tolist():
            wanted = set(sample[sample[:, 0] == row, 1].tolist())
            for t, (state, match_len, _) in enumerate(self._walk(index, rows[row].tolist(), "match")):
                if t not in wanted:
                    continue
                total = index.get_suffix_count(state)
                # The root has one entry for each document's end: sum them up.
                pairs = np.array(index.get_next_tokens(state), np.float64).reshape(-1, 2)
                token_ids, inverse = np.unique(pairs[:, 0].astype(np.int64), return_inverse=True)
                counts = np.rint(np.bincount(inverse, weights=pairs[:, 1] * total)).astype(np.int64)
                separators, token_ids, token_counts = split_separator(token_ids, counts)
                if section == "match":
                    token_ids = token_counts = NOTHING
                entries.append((match_len, total, separators, token_ids, token_counts))
        return Answers.of(entries)
