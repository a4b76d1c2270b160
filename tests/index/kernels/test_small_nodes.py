"""Nodes of few ranks, counted in bit masks, against histograms and the naive twins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from corpus_index import CorpusIndex, make_estimator
from corpus_index._kernels.intrinsics import WORD
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.small_nodes import count_narrow, is_narrow
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..targets.test_interpolated import CASES, dense, dense_mixed

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]


@kernel()
def count(next_tokens, common, order, a, e, depth, begin, end, by_left, label, keep, tally, lefts, tokens):
    return count_narrow(next_tokens, common, order, a, e, depth, begin, end, by_left, label, keep, tally, lefts, tokens)


@kernel()
def narrow(num_ranks, a, e, depth):
    return is_narrow(num_ranks, a, e, depth)


def classes(counts: list[int]) -> tuple[int, int, int, int]:
    return sum(counts), counts.count(1), counts.count(2), sum(x > 2 for x in counts)


@given(
    size=st.integers(1, 2 * WORD),
    run_length=st.sampled_from([1, 2, 8, 40, 200]),
    num_tokens=st.integers(1, 30),
    before=st.integers(0, 3),
    dtype=st.sampled_from([np.uint16, np.uint32]),
    share=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_counts_equal_histograms(
    size: int, run_length: int, num_tokens: int, before: int, dtype: type, share: float, seed: int
) -> None:
    generator, depth = np.random.default_rng(seed), 4
    own, length = slice(before, before + size), before + 2 * WORD
    next_tokens = generator.integers(0, num_tokens, length).astype(dtype)  # of ranks outside, too: nothing counts them
    common = np.where(generator.random(length) * run_length < 1, depth, depth + 1).astype(np.uint8)
    order = generator.permutation(length).astype(np.uint32)
    begin = int(generator.integers(0, length))
    end = begin + int(share * (length - begin))  # a document that is left out
    label = int(generator.integers(-1, num_tokens + 1))
    counts: dict[int, int] = {}
    runs: dict[int, set[int]] = {}
    run = 0
    for k, (c, shared) in enumerate(zip(next_tokens[own].tolist(), common[own].tolist(), strict=True)):
        run = k if shared == depth else run
        if begin <= order[before + k] < end:
            continue
        counts[c] = counts.get(c, 0) + 1
        runs.setdefault(c, set()).add(run)
    lefts = {c: len(starts) for c, starts in runs.items()}
    assert narrow(next_tokens.size, before, before + size, depth)
    for by_left, keep in ((True, True), (True, False), (False, True)):
        tally, left_tally = np.zeros(num_tokens, np.uint32), np.zeros(num_tokens, np.uint32)
        tokens = np.full(num_tokens + 1, -1)
        found = count(
            next_tokens,
            common,
            order,
            before,
            before + size,
            depth,
            begin,
            end,
            by_left,
            label,
            keep,
            tally,
            left_tally,
            tokens,
        )
        assert found[:4] == classes(list(counts.values()))
        assert found[8] == counts.get(label, 0)
        if by_left:
            assert found[4:8] == classes(list(lefts.values()))
            assert found[9] == lefts.get(label, 0)
        assert found[10] == (len(counts) if keep else 0)
        kept = tokens[tokens >= 0].tolist()
        assert sorted(kept) == (sorted(counts) if keep else [])
        assert {c: int(tally[c]) for c in np.flatnonzero(tally).tolist()} == (counts if keep else {})
        of_lefts = {c: int(left_tally[c]) for c in np.flatnonzero(left_tally).tolist()}
        assert of_lefts == (lefts if keep and by_left else {})


def test_what_is_not_narrow() -> None:
    assert narrow(300, 172, 300, 254)
    assert not narrow(300, 173, 299, 1)  # the masks would reach beyond the last rank
    assert not narrow(300, 0, 129, 1)
    assert not narrow(300, 0, 2, 255)  # ranks may share more than `common` tells


@pytest.mark.parametrize("light", [128, 300])  # 300: wider nodes without a row follow narrow ones
@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("order", [None, 1, 3])
@pytest.mark.parametrize("case", CASES)
def test_probabilities_and_targets_equal_the_naive_twins(
    make_both: Both, case: str, order: int | None, leave_out: str | None, light: int
) -> None:
    generator = np.random.default_rng(5)
    phrases = [generator.integers(0, 6, length) for length in (1, 2, 3, 5, 9)]
    documents = [np.concatenate([phrases[k] for k in generator.integers(0, 5, 12)]).tolist() for _ in range(9)]
    corpus = {"documents": documents, "vocab_size": 7, "end_of_document": None, "light": light}
    index, reference = make_both(corpus)
    name, parameters, twin, twin_parameters = CASES[case]
    rows = np.array([documents[2][:12], generator.integers(0, 7, 12)])
    following = np.roll(rows, -1, axis=1)
    starts = index.doc_starts[[2, 4]]  # the second row isn't the fourth document's: that is left out all the same
    options = {"estimator": make_estimator(name, order, **parameters), "leave_out": leave_out, "positions": starts}
    scores = index.next_probabilities(rows, following, **options)
    targets = index.mixed_targets(rows, following, **options)
    table = index.row_table(options["estimator"])
    for b, row in enumerate(rows.tolist()):
        for t in range(len(row)):
            q, label = b * len(row) + t, int(following[b, t])
            known = reference.known_symbols(row[: t + 1], False)
            if leave_out == "document" and label == 6:
                continue  # the corpus lacks it: nothing is left out for it
            out = ("document", reference.document_of(int(starts[b]) + t + 1))
            left = ("self", label) if leave_out == "self" else out if leave_out else None
            expected = twin(reference, known, max_order=order, leave_out=left, **twin_parameters)
            actual = dense_mixed(targets, table, q)
            assert scores[q] == pytest.approx(expected[label], abs=1e-9)
            assert actual[label] == pytest.approx(expected[label], abs=1e-6)
            if leave_out == "document":  # the base leaves it out at the label alone
                continue
            if not (leave_out and options["estimator"].uses_left_counts):
                # left counts without the own occurrence are exact at the label; the base spreads the rest
                assert actual == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("case", CASES)
def test_a_chain_that_begins_too_deep_for_masks(make_both: Both, case: str, leave_out: str | None) -> None:
    generator = np.random.default_rng(7)
    passage = generator.integers(0, 6, 300).tolist()  # longer than `common` tells
    others = [generator.integers(0, 6, 60).tolist() for _ in range(4)]
    documents = [[*passage, 1, 2], [*passage, 3, 4], *others, [*passage, 1, 5]]
    index, _ = make_both({"documents": documents, "vocab_size": 7, "end_of_document": None, "light": 128})
    name, parameters, *_ = CASES[case]
    rows = np.array([documents[0], documents[-1], [*others[0], *passage[60:], 3, 4]])
    following = np.roll(rows, -1, axis=1)
    starts = index.doc_starts[[0, len(documents) - 1, 2]]
    options = {"estimator": make_estimator(name, None, **parameters), "leave_out": leave_out, "positions": starts}
    scores = index.next_probabilities(rows, following, **options)
    targets = index.smoothed_targets(rows, following, top_k=7, shortlist=None, **options)
    expected = [dense(targets, q)[label] for q, label in enumerate(following.reshape(-1).tolist())]
    assert scores == pytest.approx(expected, abs=1e-6)
