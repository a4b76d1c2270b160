"""Builds of an index from sources: names, special tokens, chat messages, and what is noted about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex

from corpus_teacher.data.build import BuildOptions, build_index_from_sources
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import train_tokenizer
from corpus_teacher.errors import TokenizerError

CHAT = [
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
    [{"role": "user", "content": "again"}],
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer with a chat template, as transformers saves it."""
    backend = train_tokenizer(["user assistant hi ho again\n"] * 5, 300).backend
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    (tmp_path / "tok").mkdir()
    backend.save(str(tmp_path / "tok" / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, "eos_token": "<|endoftext|>"}
    (tmp_path / "tok" / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat.jsonl").write_text(
        "".join(json.dumps({"messages": chat, "id": f"c{len(chat)}"}) + "\n" for chat in CHAT)
    )
    return tmp_path


def build(folder: Path, source: str, **options: Any) -> tuple[CorpusIndex, tuple[str, ...]]:
    options.setdefault("tokenizer", str(folder / "tok"))
    summary = build_index_from_sources([str(folder / source)], folder / "index", BuildOptions(force=True, **options))
    return CorpusIndex.open(folder / "index"), summary.notes


def test_messages_are_rendered_and_their_special_tokens_are_ids(folder: Path) -> None:
    index, notes = build(folder, "chat.jsonl", chat=True, read=ReadOptions(name_field="id", keep_fields=("messages",)))
    own = load_tokenizer(index)
    assert own.special_tokens == "ids"
    assert index.metadata["tokenizer"]["special_tokens"] == "ids"
    turn = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n"
    first = index.tokens[: index.doc_starts[1]]
    np.testing.assert_array_equal(first[:-1], own.encode(turn))
    assert own.find_token("<|im_start|>") in first
    assert index.document(0)[1:3] == ("c2", {"messages": CHAT[0]})
    assert not any("special tokens" in note for note in notes)
    votes = index.documents_of(own.encode("<|im_end|>\n"), own.find_token("<|im_start|>"))
    assert votes.documents.tolist() == [0]


def test_special_tokens_are_text_with_a_notice_or_ids(folder: Path) -> None:
    (folder / "a.txt").write_text("<|im_start|>hi<|im_end|>")
    index, notes = build(folder, "a.txt")
    assert index.num_tokens > 10
    assert any("the text contains special tokens, read as ordinary text: <|im_" in note for note in notes)
    assert load_tokenizer(index).special_tokens == "text"
    assert index.document(0).name == str(folder / "a.txt")
    index, notes = build(folder, "a.txt", special_tokens="ids")
    own = load_tokenizer(index)
    ids = [own.find_token(f"<|im_{end}|>") for end in ("start", "end")]
    assert [index.tokens[0], index.tokens[-2]] == ids
    assert index.count([ids[0]]) == 1
    assert not any("special tokens" in note for note in notes)


def test_no_chat_template(folder: Path) -> None:
    for tokenizer in ("bytes", "train:300"):
        with pytest.raises(TokenizerError, match="has no chat template"):
            build(folder, "chat.jsonl", chat=True, tokenizer=tokenizer)
    (folder / "tok" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(TokenizerError, match="has no chat template"):
        build(folder, "chat.jsonl", chat=True)


def test_ready_tokens_name_their_documents(folder: Path) -> None:
    np.save(folder / "t.npy", np.array([5, 6, 0, 7, 0]))
    index, _ = build(folder, "t.npy", tokenizer=None, end_of_document=0)
    assert index.document(1).name == f"{folder / 't.npy'}, document 1"
