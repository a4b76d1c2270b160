"""Nearby forms of a text: other blanks, other letters, the rest of a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_index import CorpusIndex

from corpus_teacher.analysis.nearby import nearby_forms
from corpus_teacher.analysis.query import index_query
from corpus_teacher.analysis.sample import sample_index
from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.tokenizers import Tokenizer, train_tokenizer

TEXTS = ["once upon a time there was a cat. it came once upon a mat, and once upon a time it sat there."] * 9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CorpusIndex, Tokenizer]]:
    tokenizer = train_tokenizer(TEXTS, 300)
    path = tmp_path_factory.mktemp("nearby") / "index"
    with build_index_from_documents(TEXTS, tokenizer, path, name="by hand") as index:
        yield index, tokenizer


def forms(made: tuple[CorpusIndex, Tokenizer], text: str) -> dict[str, int]:
    return {form.text: form.count for form in nearby_forms(*made, text)}


def test_a_blank_at_the_end(made: tuple[CorpusIndex, Tokenizer]) -> None:
    found = nearby_forms(*made, "came once upon a ")
    assert ("came once upon a", "without the blank at its end") not in {(one.text, one.what) for one in found[1:]}
    assert found[0].what in ("without the blank at its end", "with a blank before it")
    assert found[0].count == 9


def test_another_case(made: tuple[CorpusIndex, Tokenizer]) -> None:
    assert forms(made, " ONCE UPON A")["once upon a"] >= 9


def test_a_blank_before(made: tuple[CorpusIndex, Tokenizer]) -> None:
    assert forms(made, "there was a cat")[" there was a cat"] == 9
    assert forms(made, " there was a cat") == {}


def test_half_a_word(made: tuple[CorpusIndex, Tokenizer]) -> None:
    found = forms(made, " came once up")
    assert " came once upon" in found or found == {}  # where "up" is a token of its own it stands as often


@pytest.mark.parametrize("text", ["", " ", "zzz"])
def test_nothing_is_near(made: tuple[CorpusIndex, Tokenizer], text: str) -> None:
    assert nearby_forms(*made, text) == []


def test_questions_and_samples_tell_of_them(made: tuple[CorpusIndex, Tokenizer]) -> None:
    path: Path = made[0].path
    assert index_query(path, "there was a cat").nearby[0].text == " there was a cat"
    answer = sample_index(path, "there was a cat", length=2)
    assert answer.nearby[0].count == 9
    assert "".join(answer.prompt_tokens) == "there was a cat"


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 0.1])
@pytest.mark.parametrize("estimator", ["witten-bell", "ppm-c"])
def test_near_zero_the_likeliest_token_is_drawn(
    made: tuple[CorpusIndex, Tokenizer], temperature: float, estimator: str
) -> None:
    options = {"length": 6, "estimator": estimator, "max_order": 2, "prompt": " there was"}
    coldest = sample_index(made[0].path, draw=DrawOptions(0.0), **options)  # type: ignore[arg-type]
    cold = sample_index(made[0].path, draw=DrawOptions(temperature), **options)  # type: ignore[arg-type]
    if temperature < 0.05:
        assert cold.samples == coldest.samples
    assert cold.samples[0].text.startswith(" a")


def test_recall_is_sampled(made: tuple[CorpusIndex, Tokenizer]) -> None:
    one, other = (sample_index(made[0].path, " once", length=8, seed=3, recall=True) for _ in range(2))
    assert one.samples == other.samples
    assert one.estimator == "witten-bell + recall"
