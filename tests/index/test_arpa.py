"""ARPA files of Kneser–Ney: what a plain reader makes of them against the oracle, and what they refuse."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus_index.arpa as arpa_module
import corpus_index.reference.estimators as naive
import pytest
from corpus_index import CorpusIndex, IndexExistsError, IndexWriteError, QueryError, make_estimator, write_arpa
from corpus_index.reference.engine import START, ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..faults import run_faults
from .arpa_reader import Arpa
from .conftest import corpora

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]

ONE = [0.3, 0.7, 0.45]
THREE = [(0.3, 1.1, 1.2), (0.7, 0.9, 1.9), (0.2, 0.4, 0.6)]
CASES: dict[str, tuple[str, dict[str, Any], Callable[..., list[float]], dict[str, Any]]] = {
    "kneser-ney": ("kneser-ney", {"discounts": tuple((d, d, d) for d in ONE)}, naive.kneser_ney, {"discounts": ONE}),
    "modified": (
        "modified-kneser-ney",
        {"discounts": tuple(THREE)},
        naive.modified_kneser_ney,
        {"discounts": THREE},
    ),
    "kenlm": (
        "modified-kneser-ney",
        {"discounts": tuple(THREE), "convention": "kenlm"},
        naive.modified_kneser_ney,
        {"discounts": THREE, "convention": "kenlm"},
    ),
}
DOCUMENTS = [[1, 2, 1, 2, 3, 0], [0], [2, 1, 2, 0]]


def written(index: CorpusIndex, estimator: Any = None, **options: Any) -> str:
    """The text of a file."""
    file = io.BytesIO()
    write_arpa(index, estimator or make_estimator("modified-kneser-ney", 2), file, **options)
    return file.getvalue().decode()


def wordy(context: tuple[int, ...], end: int | None) -> tuple[str, ...]:
    names = {START: "<s>", end: "</s>"}
    return tuple(names.get(symbol, str(symbol)) for symbol in context)


@pytest.mark.parametrize("case", CASES)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([0, 1, 2, 4]), room=st.sampled_from([1, 500, 1 << 16]))
def test_gives_what_the_naive_twin_gives(
    make_both: Both,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    data: st.DataObject,
    corpus: dict[str, Any],
    order: int,
    room: int,
) -> None:
    """Every token after every context of the corpus, and after others."""
    monkeypatch.setattr(arpa_module, "_ROOM", room)
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    name, parameters, twin, twin_parameters = CASES[case]
    index, reference = make_both(corpus)
    arpa = Arpa(written(index, make_estimator(name, order, **parameters)))
    symbol = st.integers(0, index.vocab_size - 1)
    others = data.draw(st.lists(st.tuples(st.lists(symbol, max_size=6), st.booleans()), max_size=4))
    contexts = {*reference.contexts, *(reference.known_symbols(tokens, starts) for tokens, starts in others)}
    seen = set(reference.tokens)
    end = reference.end_of_document
    for known in contexts:
        expected = twin(reference, known, max_order=order, **twin_parameters)
        unseen = [p for token, p in enumerate(expected) if token not in seen]
        for token, p in enumerate(expected):
            word = "</s>" if token == end else str(token)
            if case == "kenlm" and token not in seen and token != end:
                p = sum(unseen) - (0 if end is None or end in seen else unseen[0])
            assert arpa.log10(wordy(known, end), word) == pytest.approx(math.log10(p), abs=1e-5)


@given(corpora(), st.integers(1, 4))
def test_every_part_of_an_ngram_is_listed(make_both: Both, corpus: dict[str, Any], order: int) -> None:
    """Readers build tries: the beginning and the end of each n-gram are n-grams; and they are those of the corpus."""
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    index, reference = make_both(corpus)
    listed = Arpa(written(index, make_estimator("kneser-ney", order))).listed
    for n in range(2, order + 2):
        end = reference.end_of_document
        whole = [(*wordy(c, end), *wordy((w,), end)) for c, w in zip(reference.contexts, reference.tokens, strict=True)]
        assert set(listed[n]) == {words[-n:] for words in whole if len(words) >= n}
        assert all(ngram[:-1] in listed[n - 1] and ngram[1:] in listed[n - 1] for ngram in listed[n])


@given(corpora())
def test_a_vocabulary_far_larger_than_the_corpus_changes_nothing(make_index: Make, corpus: dict[str, Any]) -> None:
    """Such an index stores places in its alphabet instead of ids."""
    estimator = make_estimator("modified-kneser-ney", 2, convention="kenlm")
    corpus["vocab_size"] = 7
    expected = written(make_index(**corpus), estimator)
    corpus["vocab_size"] = 100_000
    assert written(make_index(**corpus), estimator) == expected


def test_by_hand(make_index: Make) -> None:
    """One document "1 2 1": adjusted counts of the unigrams are 2 (after the start, after 2) and 1."""
    index = make_index([[1, 2, 1]], vocab_size=4)
    estimator = make_estimator("kneser-ney", 1, discounts=((0.5, 0.5, 0.5),))
    # p(1) = 1.5/3 + (1/3)/4, p(2) = 0.5/3 + (1/3)/4; every context is followed once: half of it backs off
    one, two = 1.5 / 3 + 1 / 12, 0.5 / 3 + 1 / 12
    expected = {
        1: {
            ("<unk>",): (1 / 12, 1),
            ("<s>",): (1, 0.5),
            ("</s>",): (1e-99, 1),
            ("1",): (one, 0.5),
            ("2",): (two, 0.5),
        },
        2: {
            ("<s>", "1"): (0.5 + one / 2, 1),
            ("2", "1"): (0.5 + one / 2, 1),
            ("1", "2"): (0.5 + two / 2, 1),
        },
    }
    actual = Arpa(written(index, estimator)).listed
    for n, part in expected.items():
        assert actual[n].keys() == part.keys()
        for ngram, both in part.items():
            assert actual[n][ngram] == pytest.approx([math.log10(p) for p in both], abs=1e-6)


@pytest.mark.parametrize(("convention", "ids"), [("kenlm", 2), ("plain", 1)])
def test_ids_that_the_corpus_lacks(make_index: Make, convention: str, ids: int) -> None:
    """0, the end of documents that no document has, 3 and 4: the unknown word is the latter two, or one of them."""
    index = make_index([[1, 2, 1], [2]], vocab_size=5, end_of_document=0)
    estimator = make_estimator("kneser-ney", 1, convention=convention).fit(index)
    one = index.next_probabilities([1, 1], [0, 3], estimator=estimator)
    assert one[0] == one[1]
    arpa = Arpa(written(index, estimator))
    assert arpa.log10(("1",), "</s>") == pytest.approx(math.log10(one[0]), abs=1e-6)
    assert arpa.log10(("1",), "3") == pytest.approx(math.log10(ids * one[1]), abs=1e-6)
    full = make_index([[1, 2, 1], [2, 0]], vocab_size=3, end_of_document=0)
    assert Arpa(written(full, make_estimator("kneser-ney", 1, convention=convention))).listed[1]["<unk>",][0] == -99


def test_words(make_index: Make) -> None:
    index = make_index(DOCUMENTS, vocab_size=5, end_of_document=0)
    words = ["end of it", "ein", "größer", "#", "<s> never seen"]
    actual = Arpa(written(index, words=words)).listed
    assert set(actual[1]) == {("<unk>",), ("<s>",), ("</s>",), ("ein",), ("größer",), ("#",)}
    renamed = {"1": "ein", "2": "größer", "3": "#"}
    expected = Arpa(written(index)).listed
    for n in expected:
        assert actual[n] == {tuple(renamed.get(w, w) for w in ngram): both for ngram, both in expected[n].items()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "words has 1 entries, the vocabulary 4"),
        (["", "a b", "c", "d"], "token 1 can't be called 'a b'"),
        (["", "", "c", "d"], "token 1 can't be called ''"),
        (["", "a", "<unk>", "d"], "token 2 can't be called '<unk>'"),
        (["", "a", "b", "</s>"], "token 3 can't be called '</s>'"),
        (["", "a", "b", "\ud800"], "token 3 can't be called"),
        (["", "a", "b", "a"], "tokens 1 and 3 are both called 'a'"),
    ],
)
def test_words_that_do_not_fit(make_index: Make, words: list[str], message: str) -> None:
    index = make_index(DOCUMENTS, vocab_size=4, end_of_document=0)
    with pytest.raises(QueryError, match=message):
        written(index, words=words)


def test_estimators_that_do_not_fit(make_index: Make) -> None:
    index = make_index(DOCUMENTS, vocab_size=4)
    with pytest.raises(QueryError, match="can't hold witten-bell"):
        written(index, make_estimator("witten-bell", 2))
    with pytest.raises(QueryError, match="needs a bound"):
        written(index, make_estimator("kneser-ney"))


def test_a_path_holds_the_whole_file_or_nothing(make_index: Make, tmp_path: Path) -> None:
    index, estimator = make_index(DOCUMENTS, vocab_size=4, end_of_document=0), make_estimator("kneser-ney", 2)
    expected = written(index, estimator)
    folder = tmp_path / "out"
    folder.mkdir()
    path, packed = folder / "model.arpa", folder / "model.arpa.gz"
    counts = write_arpa(index, estimator, path)
    assert counts == tuple(map(len, Arpa(expected).listed.values()))
    assert path.read_text() == expected
    write_arpa(index, estimator, str(packed))
    assert gzip.decompress(packed.read_bytes()).decode() == expected
    path.write_text("mine")
    with pytest.raises(IndexExistsError, match=r"model.arpa exists already"):
        write_arpa(index, estimator, path)
    assert path.read_text() == "mine"
    with pytest.raises(IndexExistsError, match="out exists already"):
        write_arpa(index, estimator, folder, overwrite=True)

    def stop(order: int, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_arpa(index, estimator, path, overwrite=True, progress=stop)
    assert path.read_text() == "mine"
    write_arpa(index, estimator, path, overwrite=True)
    assert path.read_text() == expected
    for nowhere in (folder / "none" / "model.arpa", path / "model.arpa"):
        with pytest.raises(IndexWriteError, match=r"model.arpa can't be written \(.*MB are free"):
            write_arpa(index, estimator, nowhere)
    assert sorted(folder.iterdir()) == [path, packed]


def test_progress_comes_to_the_end_of_every_order(make_index: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arpa_module, "_ROOM", 1)
    calls: list[tuple[int, float]] = []
    written(make_index(DOCUMENTS, vocab_size=4), progress=lambda order, share: calls.append((order, share)))
    assert [order for order, share in calls if share == 1] == [1, 2, 3]
    assert calls == sorted(calls)
    assert len(calls) > 6


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_a_file_is_old_or_new_after_any_fault_and_a_rerun_mends(tmp_path: Path, name: str) -> None:
    run_faults(
        tmp_path / "work",
        f"""
        import io, os, tempfile
        import numpy as np
        from corpus_index import build_index, make_estimator, write_arpa
        index = build_index(np.array([1, 2, 1, 2, 3]), tempfile.mkdtemp() + "/index")
        def write(path):
            write_arpa(index, make_estimator("kneser-ney", 1), path, overwrite=True)
        write(tempfile.mkdtemp() + "/{name}")  # compiles
        def prepare(folder):
            (folder / "{name}").write_bytes(b"old")
        def operate(folder):
            write(folder / "{name}")
        def check(folder, finished):
            before = (folder / "{name}").read_bytes()
            operate(folder)
            after = (folder / "{name}").read_bytes()
            assert before in ((after,) if finished else (b"old", after))
            assert os.listdir(folder) == ["{name}"]
        """,
        arguments="sizes=(0, 10, 100)",
    )
