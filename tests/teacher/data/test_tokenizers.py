"""Tokenizers: exact round trips, ordinary text, known ends, fingerprints, and what can't be loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import (
    END_OF_DOCUMENT,
    ByteTokenizer,
    Tokenizer,
    parse_vocab_size,
    token_dtype,
    train_tokenizer,
)
from corpus_teacher.errors import TokenizerError

CORPUS = ["the cat sat on the mat, the cat slept", "naïve café €5 \U0001f600 the end"] * 20
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=80)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(CORPUS, 300)


@pytest.fixture
def plain_json(trained: Tokenizer, tmp_path: Path) -> Path:
    """A tokenizer.json that asks for all that a corpus must not have: padding, truncation, added tokens."""
    backend = tokenizers.Tokenizer.from_str(trained.to_bytes().decode())
    backend.enable_padding(length=16)
    backend.enable_truncation(4)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{END_OF_DOCUMENT} $A", special_tokens=[(END_OF_DOCUMENT, 0)]
    )
    path = tmp_path / "tokenizer.json"
    backend.save(str(path), pretty=True)
    return path


@given(text=ANY_TEXT)
def test_text_survives(trained: Tokenizer, text: str) -> None:
    for tokenizer in (trained, ByteTokenizer()):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_a_batch_equals_a_loop(trained: Tokenizer, texts: list[str]) -> None:
    for tokenizer in (trained, ByteTokenizer()):
        for actual, text in zip(tokenizer.encode_batch(texts), texts, strict=True):
            np.testing.assert_array_equal(actual, tokenizer.encode(text))
            assert actual.dtype == np.uint16


@given(text=ANY_TEXT)
def test_the_byte_tokenizer_is_its_tokenizer_json(text: str) -> None:
    tokenizer = ByteTokenizer()
    expected = tokenizer.backend.encode(text, add_special_tokens=False).ids
    np.testing.assert_array_equal(tokenizer.encode(text), expected)
    assert tokenizer.backend.decode(expected) == text


def test_the_byte_tokenizer() -> None:
    tokenizer = ByteTokenizer()
    assert (tokenizer.vocab_size, tokenizer.end_of_document) == (257, 256)
    assert tokenizer.encode("é").tolist() == [0xC3, 0xA9]
    assert tokenizer.decode([97, 256, 98]) == f"a{END_OF_DOCUMENT}b"
    assert isinstance(Tokenizer.from_bytes(tokenizer.to_bytes(), spec="x"), ByteTokenizer)
    assert isinstance(load_tokenizer("bytes"), ByteTokenizer)
    with pytest.raises(TokenizerError, match="can't be written as UTF-8"):
        tokenizer.encode("\ud800")


def test_special_tokens_in_a_text_are_ordinary_text(trained: Tokenizer) -> None:
    for tokenizer in (trained, ByteTokenizer()):
        ids = tokenizer.encode(f"a{END_OF_DOCUMENT}b")
        assert tokenizer.end_of_document not in ids
        assert tokenizer.decode(ids) == f"a{END_OF_DOCUMENT}b"


def test_training(trained: Tokenizer) -> None:
    assert trained.vocab_size <= 300
    assert trained.end_of_document == 0
    assert trained.token_text(0) == END_OF_DOCUMENT
    assert len(trained.encode("the cat")) < len("the cat")
    again = train_tokenizer(iter(CORPUS), 300)
    assert again.fingerprint == trained.fingerprint
    assert train_tokenizer(CORPUS, 280).fingerprint != trained.fingerprint


def test_nothing_is_added_padded_or_cut(trained: Tokenizer, plain_json: Path) -> None:
    loaded = load_tokenizer(plain_json)
    text = "the cat sat on the mat, the cat slept"
    np.testing.assert_array_equal(loaded.encode(text), trained.encode(text))
    assert loaded.end_of_document == 0


def test_the_fingerprint_is_that_of_the_content(trained: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(trained.to_bytes()), indent=3, sort_keys=True))
    assert load_tokenizer(path).fingerprint == trained.fingerprint
    assert ByteTokenizer().fingerprint != trained.fingerprint


def test_a_folder_names_the_end_of_a_document(trained: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(trained.to_bytes().decode())
    backend.add_special_tokens(["<stop>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(str(tmp_path)).end_of_document == 0
    for eos in ("<stop>", {"content": "<stop>", "lstrip": False}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
        assert load_tokenizer(str(tmp_path)).end_of_document == trained.vocab_size
    assert load_tokenizer(tmp_path, end_of_document=END_OF_DOCUMENT).end_of_document == 0
    assert load_tokenizer(tmp_path, end_of_document="65").end_of_document == 65
    for wrong in ("<no such>", "99999"):
        with pytest.raises(TokenizerError, match="is no token of the tokenizer"):
            load_tokenizer(tmp_path, end_of_document=wrong)


def test_a_tokenizer_that_transformers_saved(trained: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(trained.to_bytes().decode()),
        eos_token=END_OF_DOCUMENT,
    )
    fast.save_pretrained(tmp_path / "saved")
    loaded = load_tokenizer(str(tmp_path / "saved"))
    text = "the cat sat €"
    np.testing.assert_array_equal(loaded.encode(text), fast(text, add_special_tokens=False)["input_ids"])
    assert loaded.end_of_document == fast.eos_token_id


def test_a_name_on_the_hub(trained: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "tokenizer.json").write_bytes(trained.to_bytes())
    asked: list[tuple[str, str]] = []

    def download(name: str, file: str) -> str:
        asked.append((name, file))
        return str(tmp_path / file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    loaded = load_tokenizer("some/model")
    assert loaded.fingerprint == trained.fingerprint
    assert loaded.spec == "some/model"
    assert asked == [("some/model", "tokenizer.json"), ("some/model", "tokenizer_config.json")]

    def missing(name: str, file: str) -> str:
        raise hub.errors.LocalEntryNotFoundError("out of reach")

    monkeypatch.setattr(hub, "hf_hub_download", missing)
    with pytest.raises(TokenizerError, match=r"there is no tokenizer 'some/model'.*transformers says"):
        load_tokenizer("some/model")


def test_vocabulary_and_merges_without_a_tokenizer_json(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    vocab = {"a": 0, "b": 1, "ab": 2, "Ġ": 3, END_OF_DOCUMENT: 4}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.encode("ab a").tolist() == [2, 3, 0]
    assert loaded.end_of_document == 4


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("./nowhere/tokenizer.json", "there is no tokenizer file or folder"),
        ("tokenizer.json", "there is no tokenizer file or folder"),
        ("no-such-tokenizer", "there is no tokenizer 'no-such-tokenizer'"),
        ("train:300", "must be trained on the sources"),
        ("train:many", "does not say how many tokens"),
    ],
)
def test_what_cannot_be_loaded(spec: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TokenizerError, match=sentence) as caught:
        load_tokenizer(spec)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_names_and_sizes() -> None:
    assert [parse_vocab_size(spec) for spec in ("train:8192", "train:8k", "bytes")] == [8192, 8192, None]
    assert (token_dtype(1 << 16), token_dtype((1 << 16) + 1)) == (np.uint16, np.uint32)
    with pytest.raises(TokenizerError, match="257"):
        train_tokenizer(["x"], 256)


def chatty() -> Tokenizer:
    """A tokenizer whose end of a document is an added token that isn't special, among others."""
    backend = train_tokenizer(["a b <tool> <|im_start|>user"] * 9, 280).backend
    backend.add_special_tokens(["<|im_start|>"])
    backend.add_tokens(["<tool>", "</doc>"])
    return Tokenizer.from_bytes(backend.to_str().encode(), spec="chatty", end_of_document=backend.token_to_id("</doc>"))


def test_a_text_never_holds_the_end_of_a_document_even_where_it_is_not_special() -> None:
    tokenizer = chatty()
    ids = tokenizer.encode("a</doc>b").tolist()
    assert tokenizer.end_of_document not in ids
    assert tokenizer.decode(ids) == "a</doc>b"
    tool = tokenizer.find_token("<tool>")
    assert tool in tokenizer.encode("a<tool>b").tolist()  # as everybody reads it
    again = Tokenizer.from_bytes(tokenizer.to_bytes(), spec="again")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.end_of_document is None
    again.end_of_document = tokenizer.end_of_document
    assert again.encode("a</doc>b").tolist() == ids
    assert again.fingerprint == tokenizer.fingerprint


def test_special_tokens_as_text_or_as_ids() -> None:
    plain = chatty()
    start, text = plain.find_token("<|im_start|>"), "<|im_start|>a<|im_start|>"
    assert start not in plain.encode(text).tolist()
    assert plain.specials_in(text + "<|x|>") == {"<|im_start|>": 2}
    as_ids = Tokenizer.from_bytes(plain.to_bytes(), spec="x", special_tokens="ids")
    assert as_ids.encode(text).tolist() == [start, *plain.encode("a"), start]
    assert ByteTokenizer(special_tokens="ids").encode("a<|endoftext|>").tolist() == [97, 256]
    with pytest.raises(TokenizerError, match="not as 'letters'"):
        ByteTokenizer(special_tokens="letters")  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_missing_before_the_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("the hub was asked"))
    for spec in ("models/mine", "./mine", "mine/", "a/b/c"):
        with pytest.raises(TokenizerError, match="there is no tokenizer file or folder"):
            load_tokenizer(spec)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TokenizerError, match="neither a file nor a folder"):
        load_tokenizer("pipe")


def test_a_run_of_zeros_makes_no_endless_token() -> None:
    assert train_tokenizer(["\0" * 100_000], 300).longest_token <= 256
