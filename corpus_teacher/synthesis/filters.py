"""Which sampled documents are kept, and the account of it: a verdict each, by the first bound that it breaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex

from corpus_teacher.errors import ConfigError
from corpus_teacher.synthesis.measures import copied, digest, longest_run, match_lengths, repeated_share
from corpus_teacher.synthesis.sampling import SampledDocument

REASONS = ("kept", "length", "unended", "repetition", "confidence", "novelty", "duplicate")
"""The verdicts, in the order in which the bounds are looked at; stored as their places."""

MEASURES = np.dtype(
    [
        ("verdict", "u1"),
        ("ended", "?"),
        ("prompt_tokens", "<i4"),
        ("num_tokens", "<i4"),
        ("repeated_share", "<f8"),
        ("longest_run", "<i4"),
        ("confidence", "<f8"),
        ("copied_share", "<f8"),
        ("longest_match", "<i4"),
    ]
)
"""A document's evidence: copied_share is NaN and longest_match −1 where no index was asked."""

REPORTED = ("num_tokens", "repeated_share", "longest_run", "confidence", "copied_share", "longest_match")
_SHARES = ("max_repeated", "min_copied", "max_copied")


@dataclass(frozen=True)
class Filters:
    """Bounds on what is kept, all inclusive; None: no bound.

    Parameters
    ----------
    min_tokens, max_tokens : int
        Of drawn tokens, without the end of the document.
    only_ended : bool
        Drop documents that reached the length before they ended.
    ngram : int
        n of the repeated n-grams.
    max_repeated : float
        Share of n-grams that stood in the document before.
    max_run : int
        How often one token stands in a row.
    min_confidence, max_confidence : float
        Mean log-probability by the teacher, nats per token (at most 0).
    match_tokens : int
        Tokens that a match with the index must have for its tokens to be copied ones.
    min_copied, max_copied : float
        Share of copied tokens.
    min_match, max_match : int
        Tokens of the longest match.
    duplicates : bool
        Drop what is equal to a document that was kept before.

    Raises
    ------
    ConfigError
        A bound out of range, or a pair that nothing fits between.
    """

    min_tokens: int = 1
    max_tokens: int | None = None
    only_ended: bool = False
    ngram: int = 4
    max_repeated: float | None = None
    max_run: int | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    match_tokens: int = 16
    min_copied: float | None = None
    max_copied: float | None = None
    min_match: int | None = None
    max_match: int | None = None
    duplicates: bool = True

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name in _SHARES and value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}: give a share from 0 to 1")
            if "confidence" in name and value is not None and not -math.inf < value <= 0:
                raise ConfigError(f"{name} is {value}: give a mean log-probability in nats per token, at most 0")
            least = 0 if "match" in name and name != "match_tokens" else 1
            if name in ("min_tokens", "max_tokens", "ngram", "max_run", "match_tokens", "min_match", "max_match") and (
                value is not None and value < least
            ):
                raise ConfigError(f"{name} is {value}: give at least {least}")
        for name in ("tokens", "confidence", "copied", "match"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ConfigError(f"min_{name} is {low} and max_{name} {high}: nothing fits between")

    @property
    def needs_index(self) -> bool:
        """Whether a bound on novelty is set."""
        return any(bound is not None for bound in (self.min_copied, self.max_copied, self.min_match, self.max_match))

    def describe(self) -> dict[str, Any]:
        """All bounds, for the record."""
        return asdict(self)


def judge(
    documents: Sequence[SampledDocument],
    filters: Filters,
    *,
    seen: set[bytes],
    index: CorpusIndex | None = None,
    keep_prompt: bool = True,
) -> npt.NDArray[Any]:
    """Measure documents and say which are kept.

    Parameters
    ----------
    documents : sequence of SampledDocument
    filters : Filters
    seen : set of bytes
        Digests of what was kept before; those of the newly kept are added.
    index : CorpusIndex, optional
        What novelty is measured against.
    keep_prompt : bool
        Whether the prompt is a part of what is written, and so of what is equal to something kept before.

    Returns
    -------
    ndarray of shape (n,), MEASURES
        `verdict` is a place in `REASONS`.

    Raises
    ------
    ConfigError
        A bound on novelty without an index.
    """
    if index is None and filters.needs_index:
        raise ConfigError("there is a bound on novelty and no index to measure it against: give one")
    found = np.zeros(len(documents), MEASURES)
    matches = None if index is None else match_lengths(index, [document.tokens for document in documents])
    for number, document in enumerate(documents):
        row, tokens = found[number], document.tokens
        row["ended"], row["prompt_tokens"], row["num_tokens"] = document.ended, document.prompt.size, tokens.size
        row["repeated_share"] = repeated_share(tokens, filters.ngram)
        row["longest_run"] = longest_run(tokens)
        row["confidence"] = document.confidence
        row["copied_share"], row["longest_match"] = (
            (math.nan, -1) if matches is None else copied(matches[number], filters.match_tokens)
        )
        reason = _first_broken(row, filters)
        if reason == "kept" and filters.duplicates:
            key = digest(document.written(keep_prompt=keep_prompt))
            reason = "duplicate" if key in seen else reason
            seen.add(key)
        row["verdict"] = REASONS.index(reason)
    return found


def report_of(measures: npt.NDArray[Any]) -> dict[str, Any]:
    """How many documents were sampled, kept, ended, and dropped by which bound; quantiles of each measure.

    Parameters
    ----------
    measures : ndarray of shape (n,), MEASURES

    Returns
    -------
    dict
        "sampled", "kept", "ended" (of the sampled), "dropped" (by reason), and "measures": for each of `REPORTED` that
        was taken, "sampled" and "kept" with "p10", "p50" and "p90".
    """
    kept = measures[measures["verdict"] == 0]
    counts = np.bincount(measures["verdict"], minlength=len(REASONS)).tolist()
    asked = REPORTED if measures.size and measures["longest_match"][0] >= 0 else REPORTED[:-2]
    return {
        "sampled": measures.size,
        "kept": kept.size,
        "ended": int(measures["ended"].sum()),
        "dropped": dict(zip(REASONS[1:], counts[1:], strict=True)),
        "measures": {
            name: {which: _quantiles(part[name]) for which, part in (("sampled", measures), ("kept", kept))}
            for name in asked
        },
    }


def _first_broken(row: Any, filters: Filters) -> str:
    """The reason of the first bound that a measured document breaks, or "kept"."""
    bounds = (
        ("length", "num_tokens", filters.min_tokens, filters.max_tokens),
        ("unended", "ended", filters.only_ended or None, None),
        ("repetition", "repeated_share", None, filters.max_repeated),
        ("repetition", "longest_run", None, filters.max_run),
        ("confidence", "confidence", filters.min_confidence, filters.max_confidence),
        ("novelty", "copied_share", filters.min_copied, filters.max_copied),
        ("novelty", "longest_match", filters.min_match, filters.max_match),
    )
    for reason, name, low, high in bounds:
        if (low is not None and row[name] < low) or (high is not None and row[name] > high):
            return reason
    return "kept"


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float] | None:
    if values.size == 0:
        return None
    found = np.quantile(values.astype(np.float64), [0.1, 0.5, 0.9])
    return dict(zip(("p10", "p50", "p90"), (float(value) for value in found), strict=True))
