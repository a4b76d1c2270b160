"""The engine against KenLM: its discounts, and the probability of every token of a text that it doesn't hold."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, Estimator, make_estimator, write_arpa
from corpus_index.estimators.counts_of_counts import counts_of_counts, kenlm_shift
from corpus_index.reference.counts import kenlm_counts_of_counts, kneser_ney_discounts
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import example, given
from hypothesis import strategies as st

from .arpa_reader import Arpa
from .conftest import corpora

pytestmark = pytest.mark.slow

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]

FIXTURE = json.loads((Path(__file__).parent / "data" / "kenlm.json").read_text())
MODELS = [(name, model) for name, corpus in FIXTURE.items() for model in corpus["models"]]
PADDED = [(name, model) for name, model in MODELS if "--vocab_pad" in model["options"]]
UNPADDED = [(name, model) for name, model in MODELS if "--vocab_pad" not in model["options"]]
every_model = pytest.mark.parametrize(
    ("name", "model"), UNPADDED, ids=[f"{name} {model['order']}" for name, model in UNPADDED]
)


def index_of(make_index: Make, name: str, vocab_size: int | None = None) -> CorpusIndex:
    corpus = FIXTURE[name]
    return make_index(corpus["documents"], vocab_size=vocab_size or corpus["vocab_size"], end_of_document=0)


def expected_of(model: dict[str, Any]) -> np.ndarray:
    return np.array([number for line in model["log10"] for number in line])


def fitted(index: CorpusIndex, order: int) -> Estimator:
    return make_estimator("modified-kneser-ney", order - 1, convention="kenlm").fit(index)


def log10s(index: CorpusIndex, estimator: Estimator, documents: list[list[int]]) -> np.ndarray:
    """Of every token of the documents; the end of one is the start of the next.

    For KenLM the ids that the corpus lacks are all one word.
    """
    rows = [index.next_probabilities([0, *tokens[:-1]], tokens, estimator=estimator) for tokens in documents]
    probabilities = np.concatenate(rows)
    if estimator.convention == "kenlm":
        lacking = index.symbol_counts == 0
        probabilities[lacking[np.concatenate(documents)]] *= lacking.sum()
    return np.log10(probabilities)


@every_model
@pytest.mark.parametrize("more", [0, 5])
def test_equals_kenlm(make_index: Make, name: str, model: dict[str, Any], more: int) -> None:
    """Fitted discounts, every token, and the perplexity; with one id that the corpus lacks, and with more."""
    index = index_of(make_index, name, FIXTURE[name]["vocab_size"] + more)
    estimator = fitted(index, model["order"])
    assert np.array(estimator.discounts) == pytest.approx(np.array(model["discounts"]), abs=1e-5)
    actual = log10s(index, estimator, FIXTURE[name]["held_out"])
    assert actual == pytest.approx(expected_of(model), abs=1e-5)
    assert 10 ** -actual.mean() == pytest.approx(model["perplexity"], rel=1e-5)
    assert np.array_equal(
        log10s(index, estimator, FIXTURE[name]["held_out"]), actual
    )  # nothing is left of the first time


@every_model
def test_the_plain_convention_is_another_model(make_index: Make, name: str, model: dict[str, Any]) -> None:
    """The test above can fail."""
    index = index_of(make_index, name, FIXTURE[name]["vocab_size"] + 5)
    plain = make_estimator("modified-kneser-ney", model["order"] - 1).fit(index)
    assert np.abs(log10s(index, plain, FIXTURE[name]["held_out"]) - expected_of(model)).max() > 1e-3


@pytest.mark.parametrize(("name", "model"), PADDED)
def test_a_padded_vocabulary_is_the_plain_convention(make_index: Make, name: str, model: dict[str, Any]) -> None:
    """KenLM with --vocab_pad V takes 1/V below the unigrams, for each id."""
    index = index_of(make_index, name, int(model["options"][1]))
    estimator = replace(fitted(index, model["order"]), convention="plain")
    actual = log10s(index, estimator, FIXTURE[name]["held_out"])
    assert actual == pytest.approx(expected_of(model), abs=1e-5)


@every_model
def test_a_reader_of_the_arpa_file_gets_kenlm(make_index: Make, name: str, model: dict[str, Any]) -> None:
    index, file = index_of(make_index, name), io.BytesIO()
    write_arpa(index, fitted(index, model["order"]), file)
    arpa = Arpa(file.getvalue().decode())
    for tokens, expected in zip(FIXTURE[name]["held_out"], model["log10"], strict=True):
        words = ["<s>", *map(str, tokens[:-1]), "</s>"]
        actual = [arpa.log10(tuple(words[:t]), words[t]) for t in range(1, len(words))]
        assert actual == pytest.approx(expected, abs=1e-5)


@given(corpora(), st.integers(0, 4))
@example({"documents": [[0], [1], [1]], "vocab_size": 2, "end_of_document": None}, 2)  # the last n-gram has no left
def test_counts_of_counts_are_kenlms(make_both: Both, corpus: dict[str, Any], max_order: int) -> None:
    index, reference = make_both(corpus)
    actual = counts_of_counts(index, max_order, left=True) + kenlm_shift(index, max_order)
    expected = [kenlm_counts_of_counts(reference, order, adjusted=order < max_order) for order in range(max_order + 1)]
    assert actual.tolist() == expected


@pytest.mark.parametrize("convention", ["plain", "kenlm"])
@given(corpus=corpora(), max_order=st.integers(0, 3))
def test_fitted_discounts_are_the_naive_ones(
    make_both: Both, convention: str, corpus: dict[str, Any], max_order: int
) -> None:
    index, reference = make_both(corpus)
    estimator = make_estimator("modified-kneser-ney", max_order, convention=convention).fit(index)
    expected = kneser_ney_discounts(reference, max_order, convention=convention)
    assert np.array(estimator.discounts) == pytest.approx(np.array(expected), abs=1e-12)


@pytest.fixture
def lmplz() -> Path:
    found = os.environ.get("LMPLZ") or shutil.which("lmplz")
    if found is None or not Path(found).with_name("query").exists():
        pytest.skip("KenLM's lmplz and query aren't on the PATH; LMPLZ may name the former")
    return Path(found)


def text_of(documents: list[list[int]]) -> str:
    """A line a document, without its end."""
    return "".join(" ".join(map(str, document[:-1])) + "\n" for document in documents)


@pytest.mark.live
@pytest.mark.parametrize("name", FIXTURE)
@pytest.mark.parametrize("convention", ["kenlm", "plain"])
def test_kenlm_reads_the_arpa_file_live(
    make_index: Make, tmp_path: Path, lmplz: Path, name: str, convention: str
) -> None:
    index, held_out = index_of(make_index, name), FIXTURE[name]["held_out"]
    for order in (2, 3, 4, 5):
        estimator = make_estimator("modified-kneser-ney", order - 1, convention=convention).fit(index)
        path = tmp_path / f"{order}.arpa"
        write_arpa(index, estimator, path)
        asked = subprocess.run(
            [lmplz.with_name("query"), "-v", "word", path],
            input=text_of(held_out),
            capture_output=True,
            text=True,
            check=True,
        )
        actual = [float(number) for number in re.findall(r"=\d+ \d+ (\S+)", asked.stdout)]
        assert actual == pytest.approx(log10s(index, estimator, held_out), abs=1e-5)
        build = lmplz.with_name("build_binary")
        for kind in ["probing", "trie"] if build.exists() else []:
            subprocess.run([build, "-T", tmp_path, kind, path, tmp_path / "binary"], capture_output=True, check=True)


@pytest.mark.live
@pytest.mark.parametrize("name", FIXTURE)
def test_the_arpa_file_is_lmplzs_live(make_index: Make, tmp_path: Path, lmplz: Path, name: str) -> None:
    index, path, file = index_of(make_index, name), tmp_path / "theirs.arpa", io.BytesIO()
    subprocess.run(
        [lmplz, "-o", "4", "-S", "200M", "-T", tmp_path, "--arpa", path, "--discount_fallback"],
        input=text_of(FIXTURE[name]["documents"]),
        capture_output=True,
        text=True,
        check=True,
    )
    write_arpa(index, fitted(index, 4), file)
    actual, expected = Arpa(file.getvalue().decode()).listed, Arpa(path.read_text()).listed
    for n in range(1, 5):
        assert actual[n].keys() == expected[n].keys()
        for ngram, both in expected[n].items():
            assert actual[n][ngram] == pytest.approx(both, abs=1e-5)
