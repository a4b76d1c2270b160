"""Whether ours are right: every figure's own call against the naive teacher, at sampled positions, before it is timed.

A probability is right within 2e-6 and a ten-thousandth of itself (targets hold float32). Of targets in exact form every
token of V is compared; of flat ones, that they move no more than the mass that they report as cut. Where something is
left out, the base is exact for the token that follows only (corpus_index.targets.interpolated), so that token
and the sum are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.index.judge import Comparison
from bench.teacher.oracle import NaiveTeacher
from bench.teacher.questions import Asking, Questions

ABSOLUTE, RELATIVE = 2e-6, 1e-4
SHORTEST = 16
"""Tokens of context at a sampled position: no order of an estimator reaches beyond its row."""


def dense_of(targets: Any, q: int, table: Any | None) -> np.ndarray:
    """A position's targets over V, float64; table: the rows that mixed ones refer to."""
    probs = targets.rest[q] * targets.base.astype(np.float64)
    pairs = slice(targets.offsets[q], targets.offsets[q + 1])
    probs[targets.token_ids[pairs]] += targets.probs[pairs]
    if table is None:
        return probs
    num_rows = table.offsets.size - 1
    for entry in range(targets.row_offsets[q], targets.row_offsets[q + 1]):
        number, coefficients = int(targets.rows[entry]), targets.coefficients[entry].astype(np.float64)
        if number >= 2 * num_rows:  # one of the batch's own: what leaving a document out changes
            offsets, token_ids, counts = targets.own_offsets, targets.own_token_ids, targets.own_counts
            number -= 2 * num_rows
        else:
            offsets, token_ids = table.offsets, table.token_ids
            counts = table.counts if number < num_rows else table.left_extensions
            number %= num_rows
        row = slice(offsets[number], offsets[number + 1])
        x = counts[row].astype(np.int64)
        probs[token_ids[row]] += coefficients[0] * x - coefficients[np.minimum(x, 3)]
    return probs


def difference(
    probs: np.ndarray, truth: np.ndarray, label: int, *, cut: float | None, left_out: bool, base: float
) -> str | None:
    """What is wrong with a distribution, or None; cut: the mass that a flat one says was cut, base: of the label."""
    allowed = ABSOLUTE + RELATIVE * truth
    if abs(probs.sum() - 1) > 1e-5:
        return f"sums to {probs.sum():.6f}"
    if left_out:  # a flat target keeps the label explicit then
        wrong = abs(probs[label] - truth[label]) > allowed[label] + (cut or 0.0) * base
        return f"the next token has {probs[label]:.3g}, not {truth[label]:.3g}" if wrong else None
    if cut is not None:
        moved = np.abs(probs - truth).sum()
        return f"moves {moved:.3g}, not twice {cut:.3g}" if moved > 2 * cut + 1e-4 else None
    if (np.abs(probs - truth) > allowed).any():
        token = int(np.argmax(np.abs(probs - truth) - allowed))
        return f"token {token} has {probs[token]:.3g}, not {truth[token]:.3g}"
    return None


class Judge:
    """Compares ours with the naive teacher, all askings of a text at once."""

    def __init__(self, ours: Any, index: Any, naive: NaiveTeacher) -> None:
        self.ours, self.index, self.naive = ours, index, naive

    def compare(self, askings: list[Asking], texts: dict[str, Questions], sample: int) -> dict[Asking, Comparison]:
        """The askings' comparisons at so many positions of each text, the same for all."""
        found = {asking: Comparison() for asking in askings}
        for name, questions in texts.items():
            chosen = [asking for asking in askings if asking.text == name]
            for place in self._sample(questions, sample) if chosen else ():
                self._at(questions, *place, {asking: found[asking] for asking in chosen})
        return found

    @staticmethod
    def _sample(questions: Questions, sample: int) -> list[tuple[int, int]]:
        num_rows, width = questions.input_ids.shape
        generator = np.random.default_rng(1)
        return [(int(generator.integers(num_rows)), int(generator.integers(SHORTEST, width))) for _ in range(sample)]

    def _at(self, questions: Questions, row: int, t: int, found: dict[Asking, Comparison]) -> None:
        one, label = questions.part(row, row + 1), int(questions.next_ids[row, t])
        longest = max(t + 1 if asking.max_order is None else asking.max_order for asking in found)
        occurrences = self.naive.occurrences(questions.input_ids[row, : t + 1], longest)
        truths: dict[tuple[Any, ...], np.ndarray] = {}
        for asking, comparison in found.items():
            key = (asking.estimator, asking.max_order, asking.leave_out)
            fitted = self.index.fitted(*key[:2])
            if key not in truths:
                without = self._without(asking, int(questions.positions[row]) + t + 1)
                truths[key] = self.naive.distribution(*key[:2], occurrences, without, fitted.discounts)
            wrong = self._wrong(asking, one, t, label, truths[key])
            if wrong is None:
                comparison.compared += 1
            else:
                comparison.differs(f"row {row}, position {t}: {wrong}")

    def _without(self, asking: Asking, position: int) -> np.ndarray:
        if asking.leave_out is None:
            return np.zeros(0, np.int64)
        if asking.leave_out == "self":
            return np.array([position])
        document = int(np.searchsorted(self.naive.doc_starts, position, side="right")) - 1
        return np.arange(*self.naive.doc_starts[document : document + 2])

    def _wrong(self, asking: Asking, one: Questions, t: int, label: int, truth: np.ndarray) -> str | None:
        if asking.section in ("score", "texts"):
            score = float(self.ours.ask(self.index, asking, one)[t])
            right = abs(score - truth[label]) <= ABSOLUTE + RELATIVE * truth[label]
            return None if right else f"the next token has {score:.3g}, not {truth[label]:.3g}"
        options = {}
        if asking.section in ("whole", "infinity"):  # everything that there is to compare
            one, t = Questions(one.tokens[:, : t + 2], one.positions), 0
            options = {"only_last": True, "top_k": truth.size, "shortlist": None}
        targets = self.ours.ask(self.index, asking, one, **options)
        fitted = self.index.fitted(asking.estimator, asking.max_order)
        table = self.index.row_table(fitted) if asking.section == "mixed" else None
        cut = float(targets.cut_mass[t]) if asking.section == "flat" else None
        probs = dense_of(targets, t, table)
        base = float(targets.base[label])
        return difference(probs, truth, label, cut=cut, left_out=asking.leave_out is not None, base=base)
