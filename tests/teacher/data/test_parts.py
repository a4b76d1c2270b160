"""A text in parts has the tokens of the whole, whatever the tokenizer and wherever the parts meet."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from corpus_teacher.data import parts
from corpus_teacher.data.documents import Document
from corpus_teacher.data.parts import sound_parts
from corpus_teacher.data.pipeline import tokenize_documents
from corpus_teacher.data.tokenizers import ByteTokenizer, Tokenizer, train_tokenizer

LINES = [
    "The old king went into the forest, and nobody saw him again.\n",
    "one. Two.\r\n\r\n",
    "ends in a space \nand goes on  \n\n",
    "a line of words and more words ",
    "naïve e\u0301 Ünïcode — 漢字かな交じり文 \U0001f600 ",
    "0" * 37,
    "\0" * 19,
    "ab" * 11,
    "12345678.",
]


def byte_level(*, prefix: bool, regex: bool = True) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
    backend.decoder = decoders.ByteLevel()
    return trained(backend)


def composed() -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(backend)


def like_llama() -> Tokenizer:
    """A space in front of the text, and no words: the whole text is one to its byte-pair encoding."""
    backend = tokenizers.Tokenizer(models.BPE(fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"\\n+"), "isolated")  # the trainer's patience only
    made = trained(backend)
    made.backend.pre_tokenizer = pre_tokenizers.Sequence([])
    return made


def trained(backend: tokenizers.Tokenizer) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        max_token_length=40,
    )
    backend.train_from_iterator([line * 9 for line in LINES], trainer=trainer)
    return Tokenizer(backend, spec="made", end_of_document=1)


MAKERS = {
    "bytes": ByteTokenizer,
    "train": lambda: train_tokenizer([line * 9 for line in LINES], 400),
    "prefix space": lambda: byte_level(prefix=True),
    "no words": lambda: byte_level(prefix=False, regex=False),
    "NFC": composed,
    "like llama": like_llama,
}


@cache
def made(kind: str) -> Tokenizer:
    return MAKERS[kind]()


@pytest.mark.parametrize("kind", MAKERS)
@given(
    lines=st.lists(st.tuples(st.sampled_from(LINES), st.integers(1, 60)), min_size=1, max_size=6),
    sizes=st.lists(st.integers(200, 1500), min_size=1, max_size=8),
)
def test_tokens_are_those_of_the_uncut_text(kind: str, lines: list[tuple[str, int]], sizes: list[int]) -> None:
    text = "".join(line * count for line, count in lines)
    pieces, begin = [], 0
    while begin < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(Document(text[begin : begin + size], "x", ends=begin + size >= len(text)))
        begin += size
    tokenizer = made(kind)
    actual = tokenize_documents([*pieces, "end"], tokenizer, workers=2)
    end = tokenizer.end_of_document
    np.testing.assert_array_equal(actual.tokens, [*tokenizer.encode(text), end, *tokenizer.encode("end"), end])
    assert actual.num_documents == 2
    assert actual.num_bytes == len(text.encode()) + 3


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("line", LINES)
def test_parts_stay_short(kind: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_CHARS", 4000)
    text = line * (40_000 // len(line))
    pieces = [
        Document(text[begin : begin + 4000], ends=begin + 4000 >= len(text)) for begin in range(0, len(text), 4000)
    ]
    tokenizer = made(kind)
    made_of_it = list(sound_parts(pieces, tokenizer))
    assert "".join(part.text for part in made_of_it) == text
    assert max(len(part.text) for part in made_of_it) <= 9000
    tokens = tokenize_documents(pieces, tokenizer).tokens
    np.testing.assert_array_equal(tokens[:-1], tokenizer.encode(text))


def test_tokens_longer_than_what_a_check_reads_are_never_cut() -> None:
    backend = byte_level(prefix=False).backend
    backend.add_tokens(["x" * 3000])
    pieces = [Document("x" * 4000, ends=number == 4) for number in range(5)]
    (part,) = sound_parts(pieces, Tokenizer(backend, spec="long"))
    assert len(part.text) == 20_000
