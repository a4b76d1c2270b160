"""Whether answers agree: no figure counts before they do.

A peer indexes `doc SEP doc SEP …`, so it knows occurrences that only a separator follows; ours counts
occurrences with a continuation in their document. The rules, for one position:
- the peer's match has occurrences besides those before a separator: lengths, counts (less the separators) and
  distributions are equal;
- it has none: ours is shorter;
- the peer was asked with a capped context and matched all of it: ours is at least as long, nothing else can
  be compared;
- the peer only approximates this distribution, or nothing matched at all: nothing but the length is compared,
  or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.index.contender import Answers
from bench.index.oracle import Oracle

SAMPLE = {"match": 2_000, "continuations": 300, "order4": 300}
SAMPLE_ROWS = 16
ORACLE_SAMPLE = 48


@dataclass
class Comparison:
    """How many positions were compared, in full or in part, and a sentence for the first few that differ."""

    compared: int = 0
    partly: int = 0
    differing: int = 0
    examples: list[str] = field(default_factory=list)

    def differs(self, sentence: str) -> None:
        """Notes one that differs."""
        self.differing += 1
        if len(self.examples) < 3:
            self.examples.append(sentence)

    def __str__(self) -> str:
        if self.differing:
            return f"differs at {self.differing} positions: {self.examples[0]}"
        return f"equal at {self.compared}, consistent at {self.partly} more"


def sample_positions(shape: tuple[int, ...], section: str, *, seed: int = 0) -> np.ndarray:
    """The (row, t) pairs that are judged, sorted, from rows spread over all; t ≥ 3: four tokens are known."""
    rows = np.unique(np.linspace(0, shape[0] - 1, SAMPLE_ROWS).astype(np.int64))
    places = len(rows) * (shape[1] - 3)
    chosen = np.random.default_rng(seed).permutation(places)[: SAMPLE[section]]
    chosen.sort()
    return np.stack([rows[chosen // (shape[1] - 3)], chosen % (shape[1] - 3) + 3], axis=1)


def oracle_sample(sample: np.ndarray) -> np.ndarray:
    """Which of the sampled positions the oracle answers too: indices into the sample."""
    return np.unique(np.linspace(0, len(sample) - 1, min(ORACLE_SAMPLE, len(sample))).astype(np.int64))


def oracle_answers(oracle: Oracle, section: str, rows: np.ndarray, sample: np.ndarray) -> Answers:
    """The oracle's answers at `oracle_sample` of the sample."""
    entries = []
    for row, t in sample[oracle_sample(sample)].tolist():
        match_len, token_ids, counts = oracle.answer(rows[row, : t + 1], 4 if section == "order4" else None)
        total = int(counts.sum())
        if section == "match":
            token_ids = counts = np.zeros(0, np.int64)
        entries.append((match_len, total, 0, token_ids, counts))
    return Answers.of(entries)


def take(answers: Answers, places: np.ndarray) -> Answers:
    """The answers at some of the places."""
    return Answers.of(
        (
            int(answers.match_len[i]),
            int(answers.counts[i]),
            int(answers.separators[i]),
            answers.token_ids[answers.offsets[i] : answers.offsets[i + 1]],
            answers.token_counts[answers.offsets[i] : answers.offsets[i + 1]],
        )
        for i in places.tolist()
    )


def compare(
    section: str, ours: Answers, theirs: Answers, *, cap: int | None = None, exact_up_to: int | None = None
) -> Comparison:
    """Ours (or the oracle's), without separators, against a peer's (or the oracle's)."""
    found = Comparison()
    if len(ours.match_len) != len(theirs.match_len):
        found.differs(f"{len(ours.match_len)} answers against {len(theirs.match_len)}")
        return found
    for i in range(len(ours.match_len)):
        match_len, count = int(ours.match_len[i]), int(ours.counts[i])
        their_len, their_total = int(theirs.match_len[i]), int(theirs.counts[i])
        their_count = their_total - int(theirs.separators[i])
        if section != "match" and exact_up_to is not None and their_total > exact_up_to:
            continue
        if section == "order4" and their_len != 4 and not (their_len >= 0 and their_len == match_len):
            their_len, their_count = 4, 0  # a peer that is silent about the four tokens
        capped = cap is not None and section != "order4" and their_len == cap
        if their_len == 0:
            wrong = "theirs 0" if match_len != 0 else None
        elif their_count == 0:
            wrong = f"theirs {their_len} stands before separators only" if match_len >= their_len else None
        elif capped:
            wrong = f"theirs at least {their_len}" if match_len < their_len else None
        elif (match_len, count) != (their_len, their_count):
            wrong = f"count {count}, theirs {their_len}, count {their_count}"
        elif section != "match" and not _same_distribution(ours, theirs, i):
            wrong = "and theirs too, but the continuations differ"
        else:
            wrong = None
            found.compared += 1
        if wrong is not None:
            found.differs(f"sample {i}: length {match_len}, {wrong}")
        elif capped or their_len == 0 or their_count == 0:
            found.partly += 1
    return found


def _same_distribution(ours: Answers, theirs: Answers, i: int) -> bool:
    mine, other = (slice(a.offsets[i], a.offsets[i + 1]) for a in (ours, theirs))
    return np.array_equal(ours.token_ids[mine], theirs.token_ids[other]) and np.array_equal(
        ours.token_counts[mine], theirs.token_counts[other]
    )
