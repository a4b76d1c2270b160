"""How sampled documents begin: with nothing, with texts that are given, or as the documents of a corpus do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.documents import UNPACK_RATIO, Progress, silent
from corpus_teacher.data.opening import open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.data.tokens import read_tokens
from corpus_teacher.errors import ConfigError
from corpus_teacher.neural.identity import check_same_tokenizer

INDEX_MANIFEST = "manifest.json"


class Prompts:
    """Beginnings of documents, in an order that a seed decides.

    Sample number k begins with prompt k of that order; after the last one they begin anew.

    Parameters
    ----------
    tokens : ndarray of shape (N,), integer
    begins, ends : ndarray of shape (P,), int64
        Where each prompt lies in it.
    seed : int, optional
        Of the order; None: as given.

    Raises
    ------
    ConfigError
        No prompt at all.
    """

    def __init__(
        self,
        tokens: npt.NDArray[Any],
        begins: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        *,
        seed: int | None = None,
    ) -> None:
        if begins.size == 0:
            raise ConfigError("there is no prompt: name texts that hold at least one document")
        order = np.arange(begins.size) if seed is None else np.random.default_rng(seed).permutation(begins.size)
        self._tokens, self._begins, self._ends = tokens, begins[order], ends[order]

    @classmethod
    def of_lists(cls, prompts: Sequence[npt.ArrayLike]) -> Prompts:
        """Prompts that are given as token ids, in their order."""
        parts = [np.asarray(prompt, np.int64).reshape(-1) for prompt in prompts]
        ends = np.cumsum([part.size for part in parts])
        begins = ends - [part.size for part in parts]
        return cls(np.concatenate(parts) if parts else np.zeros(0, np.int64), begins, ends)

    def __len__(self) -> int:
        return self._begins.size

    def __getitem__(self, number: int) -> npt.NDArray[np.int64]:
        """The prompt of sample `number`, which may be any from 0 on."""
        place = number % len(self)
        return self._tokens[self._begins[place] : self._ends[place]].astype(np.int64)

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return int((self._ends - self._begins).max())

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all prompts in their order."""
        sha = hashlib.sha256()
        for number in range(len(self)):
            prompt = self[number]
            sha.update(len(prompt).to_bytes(8, "little") + prompt.astype("<i8").tobytes())
        return sha.hexdigest()


def document_prompts(
    sources: list[str],
    tokenizer: Tokenizer | None,
    *,
    num_tokens: int | None = None,
    vocab_size: int,
    seed: int = 0,
    text_field: str = "text",
    unpack_ratio: float = UNPACK_RATIO,
    token_dtype: str = "auto",
    progress: Progress = silent,
) -> Prompts:
    """The beginnings of a corpus' documents, shuffled.

    Parameters
    ----------
    sources : list of str
        One folder of an index; or texts or ready tokens, as `find_sources` takes them.
    tokenizer : Tokenizer, optional
        The teacher's; an index with another one is refused.
    num_tokens : int, optional
        Of each document; those that aren't longer are left out. None: whole documents, each a prompt, which an index,
        whose documents are there already, can't be asked for.
    vocab_size : int
        V of the teacher.
    seed : int
        Of their order.
    text_field, unpack_ratio, token_dtype, progress
        As in `corpus_teacher.neural.cache_teacher`.

    Raises
    ------
    ConfigError
        No document, or none that is long enough; ready tokens and text together.
    InputError, TokenizerError, IndexFormatError
    """
    if num_tokens is not None and num_tokens < 1:
        raise ConfigError(f"the prompts have {num_tokens} tokens: give at least 1, or none for whole documents")
    end = tokenizer.end_of_document if tokenizer else None
    if len(sources) == 1 and (Path(sources[0]) / INDEX_MANIFEST).is_file():
        if num_tokens is None:
            raise ConfigError(
                f"the prompts are the documents of the index {sources[0]}: say how many tokens of each, 16 say"
            )
        with open_index(sources[0]) as index:
            if tokenizer is not None and index.metadata.get("tokenizer"):
                check_same_tokenizer(tokenizer, load_tokenizer(index))
            if index.vocab_size > vocab_size:
                raise ConfigError(
                    f"the index {sources[0]} has {index.vocab_size:,} tokens and the teacher {vocab_size:,}: build it "
                    "with the teacher's tokenizer"
                )
            starts = np.asarray(index.doc_starts, np.int64)
            return _beginnings(index.tokens, starts, index.end_of_document, num_tokens, seed, sources)
    corpus, _ = read_tokens(
        sources,
        tokenizer,
        vocab_size=vocab_size,
        end_of_document=end,
        read=ReadOptions(text_field=text_field, unpack_ratio=unpack_ratio),
        dtype=token_dtype,
        without_tokenizer="the teacher has no tokenizer to read prompts with: name it (`tokenizer`)",
        progress=progress,
    )
    return _beginnings(corpus.tokens, corpus.doc_starts, end, num_tokens, seed, sources)


def _beginnings(
    tokens: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    end: int | None,
    num_tokens: int | None,
    seed: int,
    sources: list[str],
) -> Prompts:
    """The first tokens of all documents that are longer, copied out of the corpus."""
    begins, ends = starts[:-1], starts[1:].copy()
    if end is not None:
        last = np.maximum(ends - 1, 0)
        ends -= (ends > begins) & (tokens[last] == end)
    if num_tokens is not None:
        longer = ends - begins > num_tokens
        begins, ends = begins[longer], begins[longer] + num_tokens
    if begins.size == 0:
        wanted = "" if num_tokens is None else f" of more than {num_tokens} tokens"
        raise ConfigError(f"{', '.join(sources)} holds no document{wanted} to take a prompt from: ask for shorter ones")
    sizes = ends - begins
    copied_ends = np.cumsum(sizes)
    places = np.arange(int(copied_ends[-1])) + np.repeat(begins - (copied_ends - sizes), sizes)
    return Prompts(np.asarray(tokens[places]), copied_ends - sizes, copied_ends, seed=seed)
