"""Measures against naive twins, verdicts in their order, and the account of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, build_index
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.errors import ConfigError
from corpus_teacher.synthesis import Filters, SampledDocument, copied, judge, longest_run, match_lengths, report_of
from corpus_teacher.synthesis import repeated_share as repeated

CORPUS = [[1, 2, 3, 1, 2, 0], [3, 3, 2, 1, 0], [0], [2, 2, 2, 0]]
END = 0
TOKENS = st.lists(st.integers(1, 4), max_size=24)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    starts = np.cumsum([0, *map(len, CORPUS)])
    path = tmp_path_factory.mktemp("novelty") / "index"
    return build_index(np.concatenate(CORPUS), path, doc_starts=starts, vocab_size=5, end_of_document=END)


def document(
    tokens: list[int], *, prompt: list[int] | None = None, ended: bool = True, confidence: float = -1.0
) -> Any:
    return SampledDocument(np.array(prompt or [], np.int64), np.array(tokens, np.int64), ended, confidence)


def verdicts(documents: list[Any], **bounds: Any) -> list[str]:
    from corpus_teacher.synthesis.filters import REASONS

    index, keep = bounds.pop("index", None), bounds.pop("keep_prompt", True)
    found = judge(documents, Filters(**bounds), seen=set(), index=index, keep_prompt=keep)
    return [REASONS[place] for place in found["verdict"]]


def naive_match_lengths(tokens: list[int]) -> list[int]:
    """By trying every substring of every document, a continuation after it."""
    held = {tuple(text[lo:hi]) for text in CORPUS for lo in range(len(text)) for hi in range(lo + 1, len(text))}
    return [
        max((n for n in range(1, end + 1) if tuple(tokens[end - n : end]) in held), default=0)
        for end in range(1, len(tokens) + 1)
    ]


@given(TOKENS, st.integers(1, 5))
def test_repetition(tokens: list[int], n: int) -> None:
    grams = [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]
    expected = sum(gram in grams[:at] for at, gram in enumerate(grams)) / len(grams) if grams else 0.0
    assert repeated(np.array(tokens, np.int64), n) == pytest.approx(expected)
    runs = [
        n for n in range(1, len(tokens) + 1) for at in range(len(tokens)) if tokens[at : at + n] == [tokens[at]] * n
    ]
    assert longest_run(np.array(tokens, np.int64)) == max(runs, default=0)


@given(st.lists(TOKENS, min_size=1, max_size=4), st.integers(1, 4))
def test_novelty(index: CorpusIndex, documents: list[list[int]], n: int) -> None:
    found = match_lengths(index, [np.array(tokens, np.int64) for tokens in documents])
    for tokens, actual in zip(documents, found, strict=True):
        expected = naive_match_lengths(tokens)
        assert actual.tolist() == expected
        inside = {at for end, length in enumerate(expected) if length >= n for at in range(end - length + 1, end + 1)}
        share, longest = copied(actual, n)
        assert share == pytest.approx(len(inside) / len(tokens) if tokens else 0.0)
        assert longest == max(expected, default=0)


def test_each_bound_drops_what_breaks_it_and_keeps_what_meets_it(index: CorpusIndex) -> None:
    short, long = document([1]), document([1, 2, 3, 4])
    assert verdicts([short, long], min_tokens=2) == ["length", "kept"]
    assert verdicts([short, long], max_tokens=3) == ["kept", "length"]
    assert verdicts([document([]), short]) == ["length", "kept"]
    assert verdicts([document([1], ended=False), short], only_ended=True) == ["unended", "kept"]
    assert verdicts([document([1, 2, 1, 2]), document([1, 2, 1])], ngram=2, max_repeated=0.3) == ["repetition", "kept"]
    assert verdicts([document([2, 2, 2]), document([2, 2])], max_run=2) == ["repetition", "kept"]
    unsure, sure = document([1], confidence=-3.5), document([2], confidence=-0.5)
    assert verdicts([unsure, sure], min_confidence=-2) == ["confidence", "kept"]
    assert verdicts([unsure, sure], max_confidence=-2) == ["kept", "confidence"]
    copy, new = document([1, 2, 3, 1]), document([4, 4, 3, 4])
    assert verdicts([copy, new], index=index, match_tokens=3, max_copied=0.5) == ["novelty", "kept"]
    assert verdicts([copy, new], index=index, match_tokens=3, min_copied=0.5) == ["kept", "novelty"]
    assert verdicts([copy, new], index=index, max_match=3) == ["novelty", "kept"]
    assert verdicts([copy, new], index=index, min_match=4) == ["kept", "novelty"]


def test_the_first_broken_bound_is_the_reason() -> None:
    bad = document([1, 1], ended=False, confidence=-9)
    for bounds in ({"min_tokens": 3}, {"only_ended": True}, {"max_run": 1}, {"min_confidence": -1}):
        assert verdicts([bad], **bounds) != ["kept"]
    assert verdicts([bad], min_tokens=3, only_ended=True, max_run=1, min_confidence=-1) == ["length"]
    assert verdicts([bad], only_ended=True, max_run=1, min_confidence=-1) == ["unended"]
    assert verdicts([bad], max_run=1, min_confidence=-1) == ["repetition"]


def test_duplicates_are_those_of_what_is_written() -> None:
    pair = [document([1, 2], prompt=[3]), document([1, 2], prompt=[4]), document([2], prompt=[3, 1])]
    assert verdicts(pair) == ["kept", "kept", "duplicate"]
    assert verdicts(pair, keep_prompt=False) == ["kept", "duplicate", "kept"]
    assert verdicts([*pair, *pair], duplicates=False) == ["kept"] * 6
    dropped_first = [document([1], confidence=-9), document([1])]
    assert verdicts(dropped_first, min_confidence=-2) == ["confidence", "kept"]


def test_the_report_adds_up(index: CorpusIndex) -> None:
    documents = [document([1] * n, ended=n % 2 == 0, confidence=-float(n)) for n in range(1, 12)]
    found = judge(documents, Filters(min_tokens=3, min_confidence=-9), seen=set(), index=index)
    report = report_of(found)
    assert report["sampled"] == 11 == report["kept"] + sum(report["dropped"].values())
    assert report["dropped"]["length"] == 2
    assert report["dropped"]["confidence"] == 2
    assert report["ended"] == 5
    assert report["measures"]["num_tokens"]["sampled"] == {"p10": 2, "p50": 6, "p90": 10}
    assert report["measures"]["confidence"]["kept"] == pytest.approx({"p10": -8.4, "p50": -6, "p90": -3.6})
    assert report["measures"]["longest_match"]["sampled"]["p90"] == 1
    unasked = judge(documents, Filters(), seen=set())
    assert "copied_share" not in report_of(unasked)["measures"]
    assert math.isnan(unasked["copied_share"][0])
    assert report_of(found[:0])["measures"]["num_tokens"]["kept"] is None


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"max_repeated": 1.5}, "max_repeated is 1.5: give a share"),
        ({"min_copied": -0.1}, "min_copied is -0.1: give a share"),
        ({"min_confidence": 0.5}, "min_confidence is 0.5: give a mean log-probability"),
        ({"max_confidence": math.nan}, "max_confidence is nan"),
        ({"min_tokens": 0}, "min_tokens is 0: give at least 1"),
        ({"ngram": 0}, "ngram is 0"),
        ({"match_tokens": 0}, "match_tokens is 0"),
        ({"max_match": -1}, "max_match is -1: give at least 0"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens is 5 and max_tokens 4: nothing fits"),
    ],
)
def test_bounds_out_of_range(bounds: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Filters(**bounds)


def test_novelty_needs_an_index() -> None:
    with pytest.raises(ConfigError, match="no index to measure"):
        judge([document([1])], Filters(max_match=3), seen=set())
