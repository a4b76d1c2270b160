"""Ours: the targets and probabilities of corpus_index, a (B, T) batch a call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpora import Corpus
from bench.index import ours
from bench.index.contender import Rate
from bench.teacher.questions import Asking, Questions
from bench.teacher.tails import Tail, tail
from bench.timing import one_and_two, pass_rates

BATCH_ROWS = 8
"""B: rows a call; T is that of the rows."""
TOP_K = 64
COPIES = 64
"""Of a position in the calls of `tails`."""
PASS_S = 2.0
"""Seconds of a pass, about: where all rows would take longer, a pass has fewer of them, one batch at least."""

TEXTS = (("held-out", None), ("in-corpus", None), ("in-corpus", "self"), ("in-corpus", "document"))
ESTIMATORS = {
    "flat": (("witten-bell", 5), ("witten-bell", 8), ("modified-kneser-ney", 4), ("modified-kneser-ney", 8)),
    "mixed": (("witten-bell", 5), ("witten-bell", 8), ("modified-kneser-ney", 4), ("modified-kneser-ney", 8)),
    "whole": (("witten-bell", 5), ("modified-kneser-ney", 4)),
    "score": (
        ("witten-bell", 5),
        ("witten-bell", 8),
        ("modified-kneser-ney", 4),
        ("modified-kneser-ney", 8),
        ("mle", None),
    ),
    "texts": (("modified-kneser-ney", 4),),
    "infinity": (("mle", None),),
}
THREADED = tuple(product(("flat", "mixed"), (("witten-bell", 8), ("modified-kneser-ney", 4))))
TAIL_ESTIMATORS = (
    ("witten-bell", 5),
    ("witten-bell", 8),
    ("witten-bell", None),
    ("modified-kneser-ney", 4),
    ("modified-kneser-ney", 8),
    ("mle", None),
)


def askings(sections: Sequence[str]) -> list[Asking]:
    """All figures of these sections."""
    return [
        Asking(section, name, max_order, text, leave_out)
        for section in sections
        for name, max_order in ESTIMATORS.get(section, ())
        for text, leave_out in TEXTS
        if leave_out is None or section != "texts"
    ]


def tail_askings(text: str, estimators: int) -> list[Asking]:
    """The figures of `tails` for one of its corpora, of so many estimators; held-out text has nothing to leave out."""
    leave_outs = (None,) if text == "held-out" else (None, "self", "document")
    forms = ("flat", "mixed", "score")
    return [
        Asking(form, *one, text, out) for form, one, out in product(forms, TAIL_ESTIMATORS[:estimators], leave_outs)
    ]


@cache
def _scorer(index: Any, estimator: str, max_order: int) -> Any:
    """A scorer's tables, made once."""
    return index.scorer(estimator, max_order)


class Ours(ours.Ours):
    """corpus_index's smoothed targets."""

    build_cores = (1,)
    sections = tuple(ESTIMATORS)

    @staticmethod
    def open_path(path: Path) -> Any:
        """The index of a folder, as `CorpusTeacher` opens it."""
        index = ours.Ours.open_path(path)
        index.prefer_large_pages()
        return index

    def warm_up(self, folder: Path, sections: Sequence[str] | None = None) -> None:
        """Compiles every kernel that the bench, or some sections, use: compilation is in no figure."""
        from corpus_index import build_index

        tokens = np.random.default_rng(0).integers(0, 300, size=4096).astype(np.uint16)
        tokens[-1] = 300
        index = build_index(
            tokens, folder / "warm", vocab_size=301, end_of_document=300, overwrite=True, workers=1, layout=self.layout
        )
        with index:
            questions = Questions(tokens[:1032].reshape(8, 129).astype(np.int64), np.arange(8) * 129)
            for asking in askings(self.sections if sections is None else sections):
                self.ask(index, asking, questions)

    def build(self, corpus: Corpus, folder: Path, cores: int) -> None:
        """See Contender."""
        from corpus_index import build_index

        build_index(
            corpus.tokens,
            folder / "index",
            doc_starts=corpus.doc_starts,
            vocab_size=corpus.vocab_size,
            end_of_document=corpus.vocab_size - 1,
            overwrite=True,
            workers=cores,
            layout=self.layout,
        ).close()

    @staticmethod
    def ask(index: Any, asking: Asking, questions: Questions, **options: Any) -> Any:
        """The one call that a user makes."""
        if asking.section == "texts":
            return _scorer(index, asking.estimator, asking.max_order).probabilities(questions.tokens)[:, 1:].reshape(-1)
        options |= {
            "estimator": index.fitted(asking.estimator, asking.max_order),
            "leave_out": asking.leave_out,
        }
        if asking.leave_out == "document":
            options["positions"] = questions.positions
        call = {"score": index.next_probabilities, "mixed": index.mixed_targets}.get(
            asking.section, index.smoothed_targets
        )
        if call == index.smoothed_targets:
            usual = {"top_k": TOP_K, "shortlist": None if asking.section == "whole" else TOP_K}
            options = usual | options
        return call(questions.input_ids, questions.next_ids, **options)

    def batches(self, index: Any, asking: Asking, questions: Questions) -> Iterator[Any]:
        """The answers, a batch a call."""
        for first in range(0, len(questions.tokens), BATCH_ROWS):
            yield self.ask(index, asking, questions.part(first, first + BATCH_ROWS))

    def one_pass(self, index: Any, asking: Asking, questions: Questions) -> None:
        """All rows, the answers let go."""
        for _ in self.batches(index, asking, questions):
            pass

    def as_many(self, index: Any, asking: Asking, questions: Questions) -> Questions:
        """The first of the rows, as many as a pass has time for."""
        first = questions.part(0, BATCH_ROWS)
        self.one_pass(index, asking, first)
        started = time.perf_counter()
        self.one_pass(index, asking, first)
        batches = max(1, int(PASS_S / (time.perf_counter() - started)))
        return questions.part(0, batches * BATCH_ROWS)

    def asking_rates(
        self, index: Any, asking: Asking, questions: Questions, *, runs: int, least_s: float
    ) -> tuple[list[Rate], dict[str, float]]:
        """Timed passes over all rows; what was cut, and how long the targets are."""
        questions = self.as_many(index, asking, questions)
        positions = questions.input_ids.size
        work = partial(self.one_pass, index, asking, questions)
        rates = pass_rates(work, positions, runs=runs, least_s=least_s)
        facts: dict[str, float] = {}
        if asking.section not in ("score", "texts"):
            answers = list(self.batches(index, asking, questions))
            facts["pairs"] = sum(answer.token_ids.size for answer in answers) / positions
            if asking.section == "mixed":
                facts["rows"] = sum(answer.rows.size for answer in answers) / positions
            else:
                facts["cut_mass"] = float(np.mean(np.concatenate([answer.cut_mass for answer in answers])))
        return rates, facts

    def thread_askings(
        self, path: Path, asking: Asking, questions: Questions, *, objects: int, runs: int
    ) -> tuple[list[Rate], list[Rate]]:
        """One thread over all rows and two over half each, on one opened index or on one each."""
        opened = [self.open_path(path) for _ in range(objects)]
        half = len(questions.tokens) // 2
        parts = [questions.part(0, half), questions.part(half, 2 * half)]
        halves = [partial(self.one_pass, opened[i % objects], asking, part) for i, part in enumerate(parts)]
        whole = partial(self.one_pass, opened[0], asking, questions.part(0, 2 * half))
        return one_and_two(whole, halves, 2 * half * questions.input_ids.shape[1], runs=runs)

    def asking_tail(
        self, index: Any, asking: Asking, questions: Questions, *, num: int, budget_s: float
    ) -> tuple[Tail, dict[str, int]]:
        """The tail over single positions with contexts of up to 64 tokens, and what the slowest one is.

        A score can't be asked of the last position alone: there a call is for all positions of 16 tokens, so what it
        takes beyond the median is at least what the slowest of them does.
        """
        some = self.as_many(index, asking, questions)
        work = partial(self.one_pass, index, asking, some)
        rates = pass_rates(work, some.input_ids.size, runs=3, least_s=0.05)
        median_us = 1e6 / max(
            rate.positions_per_s / rate.cpu_share for rate in rates
        )  # the least disturbed, as for calls
        width = 16 if asking.section == "score" else 64
        options = {} if asking.section == "score" else {"only_last": True}
        generator = np.random.default_rng(0)
        rows = generator.integers(0, len(questions.tokens), num)
        firsts = generator.integers(0, questions.tokens.shape[1] - width, num)

        def alone(i: int) -> Questions:
            row, first = rows[i], firsts[i]
            return Questions(
                questions.tokens[np.full(COPIES, row), first : first + width + 1],
                questions.positions[np.full(COPIES, row)] + first,
            )

        found = tail(
            lambda i: self.ask(index, asking, alone(i), **options), num, median_us, copies=COPIES, budget_s=budget_s
        )
        match = index.match(alone(found.slowest).input_ids[:1], max_order=asking.max_order)
        place = {"row": int(rows[found.slowest]), "first": int(firsts[found.slowest])}
        place |= {"match_len": int(match.match_len[0, -1]), "count": int(match.hi[0, -1] - match.lo[0, -1])}
        return found, place


class Compact(Ours):
    """In the compact layout."""

    name = "compact"
    layout = "compact"


OURS = {contender.layout: contender for contender in (Ours(), Compact())}
"""By layout."""
