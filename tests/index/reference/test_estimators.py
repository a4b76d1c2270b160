"""The naive estimators: worked by hand, what must hold on every corpus, and KenLM and infini-gram as witnesses."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import corpus_index.reference.counts as counting
import corpus_index.reference.estimators as naive
import pytest
from corpus_index.reference.engine import START, ReferenceIndex
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ..conftest import corpora

DATA = Path(__file__).parents[1] / "data"

# corpus: "a b a b c" and "b a" with a = 0, b = 1, c = 2; d = 3 isn't in it
INDEX = ReferenceIndex([[0, 1, 0, 1, 2], [], [1, 0]], vocab_size=4)
BASE = [0.375, 0.375, 0.175, 0.075]

ESTIMATORS: dict[str, tuple[Callable[..., list[float]], dict[str, Any]]] = {
    "mle": (naive.mle, {}),
    "add-k": (naive.add_k, {"k": 0.5}),
    "jelinek-mercer": (naive.jelinek_mercer, {"weights": [[0.1], [0.5, 0.7], [0.2, 0.9, 0.4]]}),
    "jelinek-mercer by a function": (naive.jelinek_mercer, {"weights": lambda order, count: count / (count + order)}),
    "absolute-discounting": (naive.absolute_discounting, {"discounts": [0.5, 0.7, 1.0]}),
    "witten-bell": (naive.witten_bell, {}),
    "dirichlet": (naive.dirichlet, {"concentrations": [1.0, 0.3, 4.0]}),
    "pitman-yor": (naive.pitman_yor, {"discounts": [0.5, 0.7, 0.9]}),
    "pitman-yor with concentrations": (naive.pitman_yor, {"discounts": [0.5], "concentrations": [0.0, 0.7, 2.0]}),
    "auto": (
        naive.auto,
        {
            "parameters": lambda order, count, distinct: (distinct / (count + order), (0.9, 1.2, 2.0)),
            "root": (0.5, 1.0, 1.5),
        },
    ),
    "kneser-ney": (naive.kneser_ney, {"discounts": [0.5, 0.7, 1.0]}),
    "modified-kneser-ney": (naive.modified_kneser_ney, {"discounts": [(0.5, 1.0, 1.5), (0.3, 1.2, 2.2)]}),
    "kenlm": (naive.modified_kneser_ney, {"discounts": [(0.5, 1.0, 1.5), (1, 2, 3)], "convention": "kenlm"}),
    "katz": (naive.katz, {"ratios": [[0.5, 0.7, 1.0], [0.3, 0.8, 1.0, 0.9]]}),
    "katz without discounts": (naive.katz, {"ratios": [[1.0]]}),
    "stupid-backoff": (naive.stupid_backoff, {}),
    "ppm-c": (naive.ppm_c, {}),
}
BRANCHING = ("pitman-yor", "pitman-yor with concentrations", "auto")
NO_UNIGRAM_CONSTANT = ("mle", "add-k", "kneser-ney", "modified-kneser-ney", *BRANCHING)

every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def small(corpus: dict[str, Any]) -> ReferenceIndex:
    """The drawn corpus with a vocabulary that can be written out."""
    return ReferenceIndex(corpus["documents"], min(corpus["vocab_size"], 6), corpus["end_of_document"])


def probabilities(name: str, index: ReferenceIndex, known: tuple[int, ...], **options: Any) -> list[float]:
    estimator, parameters = ESTIMATORS[name]
    return estimator(index, known, **parameters, **options)


# by hand


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("mle", {}, [2 / 3, 0, 1 / 3, 0]),
        ("add_k", {"k": 0.5}, [0.5, 0.1, 0.3, 0.1]),
        # of 3 occurrences: floor(log2 3) = 1
        ("jelinek_mercer", {"weights": [[9], [9, 0.6]]}, [0.4 + 0.15, 0.15, 0.2 + 0.07, 0.03]),
        ("absolute_discounting", {"discounts": [9, 0.5]}, [0.5 + 0.125, 0.125, 0.5 / 3 + 0.175 / 3, 0.025]),
        ("witten_bell", {}, [2.75 / 5, 0.75 / 5, 1.35 / 5, 0.15 / 5]),
        ("dirichlet", {"concentrations": [9, 3]}, [3.125 / 6, 1.125 / 6, 1.525 / 6, 0.225 / 6]),
        (
            "pitman_yor",
            {"discounts": [0.25, 0.5], "concentrations": [9, 1]},
            [(1.5 + 0.775) / 4, 0.775 / 4, (0.5 + 0.375) / 4, 0.075 / 4],
        ),
        # of 2 and 1, 1.4 and 0.6 are left; order 0 as below
        (
            "auto",
            {"parameters": lambda *_: (0.5, (0.4, 0.6, 0)), "root": (0.25, 0.25, 0.25)},
            [0.35 + 0.19375, 0.19375, 0.15 + 0.09375, 0.01875],
        ),
        # adjusted unigrams a 2 (start, b), b 2 (start, a), c 1: p_0 = .3875, .3875, .1875, .0375
        ("kneser_ney", {"discounts": [0.25, 0.5]}, [0.5 + 0.3875 / 3, 0.3875 / 3, 0.6875 / 3, 0.0125]),
        # p_0 = .325, .325, .225, .125; then half of it goes on
        (
            "modified_kneser_ney",
            {"discounts": [(0.5, 1, 1.5)]},
            [1 / 3 + 0.1625, 0.1625, 0.5 / 3 + 0.1125, 0.0625],
        ),
        # 0.9 of 3 is left for b and d, which have .45 of the base
        ("katz", {"ratios": [[9], [0.5, 0.8]]}, [1.6 / 3, 0.3 * 0.375 / 0.45, 0.5 / 3, 0.3 * 0.075 / 0.45]),
        # nothing discounted: 3 occurrences count as 4
        ("katz", {"ratios": [[1]]}, [0.5, 0.25 * 0.375 / 0.45, 0.25, 0.25 * 0.075 / 0.45]),
        ("stupid_backoff", {}, [2 / 3 / 1.18, 0.15 / 1.18, 1 / 3 / 1.18, 0.03 / 1.18]),
        ("stupid_backoff_scores", {"alpha": 0.5}, [2 / 3, 0.5 * 3 / 7, 1 / 3, 0]),
        ("ppm_c", {}, [0.4, 0.4 * 0.375 / 0.45, 0.2, 0.4 * 0.075 / 0.45]),
    ],
)
def test_after_b(name: str, parameters: dict[str, Any], expected: list[float]) -> None:
    """b is followed by a twice and c once; order 0 isn't what it ends in but where it starts."""
    actual = getattr(naive, name)(INDEX, (0, 1), max_order=1, **parameters)
    assert actual == pytest.approx(expected)


def test_base_and_chain() -> None:
    assert counting.base(INDEX) == pytest.approx(BASE)
    assert counting.chain(INDEX, (3, 0, 1)) == [(), (1,), (0, 1)]
    assert counting.chain(INDEX, (START, 1)) == [(), (1,), (START, 1)]
    assert counting.chain(INDEX, (START, 1), leave_out=("self", 0)) == [(), (1,)]
    assert counting.chain(INDEX, (START, 1), leave_out=("document", 2)) == [(), (1,)]


def test_adjusted_counts() -> None:
    assert counting.adjusted_counts(INDEX, ()) == {0: 2, 1: 2, 2: 1}
    assert counting.adjusted_counts(INDEX, (1,)) == {0: 2, 2: 1}
    assert counting.adjusted_counts(INDEX, (START,)) == {0: 1, 1: 1}  # raw


def test_adjusted_counts_leave_one_out() -> None:
    def left(symbols: tuple[int, ...], token: int, before: int | None) -> dict[int, int]:
        return dict(counting.adjusted_counts(INDEX, symbols, ("self", token), before))

    assert left((), 2, 1) == {0: 2, 1: 2}  # the only "b c"
    assert left((), 0, 1) == {0: 2, 1: 2, 2: 1}  # another "b a" is left
    assert left((1,), 0, 0) == {0: 1, 2: 1}  # "b a" is still preceded by the start
    assert left((1,), 0, None) == {0: 1, 2: 1}  # one "b a" is left, so only one can precede it
    assert left((1,), 2, None) == {0: 2}
    assert left((START,), 0, None) == {1: 1}
    assert dict(counting.adjusted_counts(INDEX, (), ("document", 2))) == {0: 2, 1: 1, 2: 1}


def test_ppm_c_excludes_what_longer_orders_have_seen() -> None:
    # without one "a b a", "a b" is followed by c, "b" by a and c, of which only a is new; b and d share the rest
    expected = [0.25, 0.25 * 3.75 / 4.5, 0.5, 0.25 * 0.75 / 4.5]
    assert naive.ppm_c(INDEX, (0, 1), leave_out=("self", 0)) == pytest.approx(expected)


def test_where_everything_is_seen_nothing_escapes() -> None:
    index = ReferenceIndex([[0, 0, 1, 0, 0]], vocab_size=2)
    assert naive.ppm_c(index, (0,)) == pytest.approx([2 / 3, 1 / 3])
    assert naive.katz(index, (0,), ratios=[[0.5, 0.8]]) == pytest.approx([1.6 / 2.1, 0.5 / 2.1])


def test_where_nothing_is_left() -> None:
    index = ReferenceIndex([[0]], vocab_size=2)
    for name in ("mle", "witten-bell", "kneser-ney", "ppm-c", "stupid-backoff"):
        assert probabilities(name, index, (START,), leave_out=("self", 0)) == [0.5, 0.5]


def test_kenlm_shares_the_unknown_word() -> None:
    discounts = [(0.5, 1.0, 1.5)]
    index = ReferenceIndex(INDEX.documents, vocab_size=6)  # d, e and f are <unk>
    expected = [0.325, 0.325, 0.225] + [0.125 / 3] * 3
    options: dict[str, Any] = {"discounts": discounts, "convention": "kenlm"}
    kenlm = naive.modified_kneser_ney(index, (1,), max_order=1, **options)
    assert kenlm == pytest.approx([p / 2 + q for p, q in zip(expected, [1 / 3, 0, 0.5 / 3, 0, 0, 0], strict=True)])


# parameters


def test_counts_of_counts() -> None:
    assert counting.counts_of_counts(INDEX, 0, adjusted=False) == [1, 0, 2, 0]
    assert counting.counts_of_counts(INDEX, 0, adjusted=True) == [1, 2, 0, 0]
    assert counting.counts_of_counts(INDEX, 1, adjusted=False) == [3, 2, 0, 0]
    assert counting.counts_of_counts(INDEX, 1, adjusted=True, highest=2) == [3, 2]


@given(corpora(), st.integers(0, 4), st.booleans())
def test_counts_of_counts_are_those_of_the_contexts(corpus: dict[str, Any], order: int, adjusted: bool) -> None:
    index = small(corpus)
    contexts = {context[len(context) - order :] for context in index.contexts if len(context) >= order}
    count = counting.adjusted_counts if adjusted else counting.left_counts
    counts = [number for context in contexts for number in count(index, context).values()]
    assert counting.counts_of_counts(index, order, adjusted=adjusted) == [counts.count(n) for n in (1, 2, 3, 4)]


def test_discounts() -> None:
    assert counting.absolute_discount([4, 3]) == pytest.approx(0.4)
    assert counting.absolute_discount([0, 3]) == 0.5
    assert counting.modified_discounts([4, 3, 2, 1]) == pytest.approx((0.4, 1.2, 2.2))
    assert counting.modified_discounts([4, 0, 2, 1]) == (0.5, 1.0, 1.5)
    assert counting.modified_discounts([4, 1, 4, 1]) == (0.5, 1.0, 1.5)  # D_2 would be −6
    assert counting.modified_discounts([4, 1, 1, 1]) == (0.5, 1.0, 1.5)  # D_2 would be 0, which KenLM takes
    assert counting.modified_discounts([4, 1, 1, 1], convention="kenlm") == pytest.approx((2 / 3, 0, 1 / 3))
    with pytest.raises(ValueError, match=r"\[4, 0, 2, 1\]"):
        counting.modified_discounts([4, 0, 2, 1], fallback=None)


def test_good_turing_ratios() -> None:
    index = ReferenceIndex([[0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8, 8]], vocab_size=9)  # n = 6, 2, 1
    assert counting.good_turing_ratios(index, 0, k=2) == pytest.approx([1 / 3, 0.5])
    assert counting.good_turing_ratios(INDEX, 0) == [1.0] * 5


# what must hold on every corpus


@every_estimator
@given(corpora(), st.data())
def test_sums_to_1_and_gives_everything_something(name: str, corpus: dict[str, Any], data: st.DataObject) -> None:
    index = small(corpus)
    symbol = st.integers(0, index.vocab_size - 1)
    known = index.known_symbols(data.draw(st.lists(symbol, max_size=5)), data.draw(st.booleans()))
    leave_out = data.draw(
        st.one_of(
            st.none(),
            st.tuples(st.just("self"), symbol),
            st.tuples(st.just("document"), st.integers(0, len(index.documents) - 1)),
        )
    )
    max_order = data.draw(st.sampled_from([None, 0, 1, 2, 4]))
    actual = probabilities(name, index, known, leave_out=leave_out, max_order=max_order)
    assert len(actual) == index.vocab_size
    assert sum(actual) == pytest.approx(1)
    assert min(actual) >= 0
    if name != "mle":
        assert min(actual) > 0


BETWEEN_WINDOW_AND_START: dict[str, Any] = {
    "documents": [[1, 0, 1, 0, 1, 0], [0, 0]],
    "vocab_size": 2,
    "end_of_document": None,
    "light": 1,
    "deepest": None,
}


@every_estimator
@given(corpora(), st.integers(0, 99), st.integers(0, 5), st.integers(0, 99), st.none() | st.integers(0, 6))
@example(BETWEEN_WINDOW_AND_START, 1, 1, 1, None)  # all that is known is the longest match: what precedes it isn't
@example(BETWEEN_WINDOW_AND_START, 1, 1, 1, 2)
def test_the_own_label_is_not_read(
    name: str, corpus: dict[str, Any], number: int, other: int, begin: int, max_order: int | None
) -> None:
    """At the last token of a document, which no context holds: another label there, left out, changes nothing."""
    numbers = [i for i, document in enumerate(corpus["documents"]) if document]
    number = numbers[number % len(numbers)]
    before = small(corpus)
    assume(before.end_of_document is None)
    document = before.documents[number]
    other %= before.vocab_size
    documents = [*before.documents[:number], [*document[:-1], other], *before.documents[number + 1 :]]
    after = ReferenceIndex(documents, before.vocab_size)
    if name not in NO_UNIGRAM_CONSTANT:  # the number of distinct tokens in the corpus is known to all positions
        assume(len(set(before.tokens)) == len(set(after.tokens)))
    if name == "kenlm":  # its vocabulary is
        assume(set(before.tokens) == set(after.tokens))
    context = (START, *document[:-1])
    known = context[begin % len(context) :]  # a window that begins in the document
    expected = probabilities(name, before, known, max_order=max_order, leave_out=("self", document[-1]))
    actual = probabilities(name, after, known, max_order=max_order, leave_out=("self", other))
    assert actual == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in BRANCHING])  # theirs is a whole tree's
@given(corpora(), st.data())
def test_leave_document_is_a_corpus_without_it(name: str, corpus: dict[str, Any], data: st.DataObject) -> None:
    index = small(corpus)
    number = data.draw(st.integers(0, len(index.documents) - 1))
    rest = [*index.documents[:number], *index.documents[number + 1 :], sorted(set(index.tokens))]  # all are still there
    everything = ReferenceIndex([*rest, index.documents[number]], index.vocab_size, index.end_of_document)
    without = ReferenceIndex(rest, index.vocab_size, index.end_of_document)
    context = data.draw(st.lists(st.integers(0, index.vocab_size - 1), max_size=5))
    if data.draw(st.booleans()):
        context = index.documents[number]
    known = index.known_symbols(context, data.draw(st.booleans()))
    max_order = data.draw(st.sampled_from([None, 0, 1, 2, 4]))
    actual = probabilities(name, everything, known, max_order=max_order, leave_out=("document", len(rest)))
    assert actual == pytest.approx(probabilities(name, without, known, max_order=max_order), abs=1e-12)


@given(corpora(), st.integers(0, 3))
def test_left_one_out_they_average_to_all(corpus: dict[str, Any], order: int) -> None:
    index = small(corpus)
    for suffix in {context[-order:] if order else () for context in index.contexts}:
        counts = counting.left_counts(index, suffix)
        if counts.total() >= 2:
            left = [naive.mle(index, suffix, leave_out=("self", token)) for token in counts.elements()]
            mean = [sum(column) / len(left) for column in zip(*left, strict=True)]
            assert mean == pytest.approx(naive.mle(index, suffix))


# witnesses


def load(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KENLM = [(name, model) for name, corpus in load("kenlm").items() for model in corpus["models"]]


def log10s(corpus: dict[str, Any], model: dict[str, Any], convention: str | None) -> list[float]:
    """Of every held-out token; a word that the corpus lacks may be any of the ids that it lacks."""
    padded = dict(zip(model["options"][::2], model["options"][1::2], strict=False)).get("--vocab_pad")
    vocab_size = corpus["vocab_size"] + 5 if padded is None else int(padded)
    index = ReferenceIndex(corpus["documents"], vocab_size, end_of_document=0)
    max_order = model["order"] - 1
    discounts = counting.kneser_ney_discounts(index, max_order, convention="kenlm")
    assert [list(three) for three in discounts] == [pytest.approx(three, abs=1e-5) for three in model["discounts"]]
    seen = set(index.tokens)
    answers = []
    for document in corpus["held_out"]:
        for t, token in enumerate(document):
            p = naive.modified_kneser_ney(
                index,
                (START, *document[:t]),
                discounts=discounts,
                max_order=max_order,
                convention=convention if padded is None else None,
            )
            one = padded is not None or token in seen
            answers.append(math.log10(p[token] if one else sum(p[w] for w in range(vocab_size) if w not in seen)))
    return answers


@pytest.mark.parametrize(
    ("name", "model"), KENLM, ids=[f"{name} {model['order']} {model['options'][:1]}" for name, model in KENLM]
)
def test_kenlm(name: str, model: dict[str, Any]) -> None:
    """Order by order, token by token, with its discounts; --vocab_pad V is our own convention."""
    actual = log10s(load("kenlm")[name], model, "kenlm")
    expected = [number for line in model["log10"] for number in line]
    assert actual == pytest.approx(expected, abs=1e-5)
    assert 10 ** -(sum(actual) / len(actual)) == pytest.approx(model["perplexity"], rel=1e-5)


def test_the_kenlm_test_can_fail() -> None:
    corpus = load("kenlm")["plain"]
    model = corpus["models"][0]
    expected = [number for line in model["log10"] for number in line]
    assert log10s(corpus, model, None) != pytest.approx(expected, abs=1e-3)


def test_kenlm_fixtures_reach_its_conventions() -> None:
    corpora = load("kenlm")
    assert [model["fallback"] for model in corpora["plain"]["models"]] == [False] * 5
    assert all(model["fallback"] for model in corpora["needs fallback"]["models"])
    corpus = corpora["ends in a frequent n-gram"]
    index = ReferenceIndex(corpus["documents"], corpus["vocab_size"], end_of_document=0)
    for order in range(4):
        kenlm = counting.kenlm_counts_of_counts(index, order, adjusted=True)
        assert kenlm != counting.counts_of_counts(index, order, adjusted=True)


def test_infini_gram() -> None:
    """Counts of the whole prompt and of its longest suffix, with and without the token after it, exactly."""
    fixture = load("infini_gram")
    index = ReferenceIndex(fixture["documents"], fixture["vocab_size"])
    separators = len(fixture["documents"]) + 1  # which it counts after the empty prompt
    absent = backed_off = 0
    for prompt, (token, count, both, length, longest, with_token) in zip(
        fixture["prompts"], fixture["answers"], strict=True
    ):
        assert index.count(prompt) == counting.left_counts(index, prompt).total()  # all are followed
        assert count == index.count(prompt) + (separators if not prompt else 0)
        assert both == counting.left_counts(index, prompt)[token]
        suffix = counting.chain(index, prompt)[-1]
        assert length == len(suffix)
        assert longest == index.count(suffix) + (separators if not suffix else 0)
        assert with_token == counting.left_counts(index, suffix)[token]
        if suffix:
            assert naive.mle(index, tuple(prompt))[token] == with_token / longest
        absent += count == 0
        backed_off += 0 < length < len(prompt)
    assert absent > 20
    assert backed_off > 20


@pytest.mark.live
def test_kenlm_live() -> None:
    found = os.environ.get("LMPLZ") or shutil.which("lmplz")
    if found is None or not Path(found).with_name("query").exists():
        pytest.skip("KenLM's lmplz and query aren't on the PATH; LMPLZ may name the former")
    actual = script("make_kenlm").make(Path(found))
    for name, expected in load("kenlm").items():
        assert actual[name]["documents"] == expected["documents"]
        for model, stored in zip(actual[name]["models"], expected["models"], strict=True):
            assert model["log10"] == [pytest.approx(line, abs=1e-5) for line in stored["log10"]]


@pytest.mark.live
def test_infini_gram_live() -> None:
    pytest.importorskip("infini_gram", reason="infini-gram isn't installed")
    assert script("make_infini_gram").make() == load("infini_gram")
