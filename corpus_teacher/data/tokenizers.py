"""Tokenizers: text ↔ token ids; trained on the sources, plain bytes, or loaded (see `tokenizer_loading`).

One small class wraps a fast tokenizer of the `tokenizers` library and settles what matters for a corpus:

- text is *ordinary*: a document that happens to contain `<|endoftext|>` gets the tokens of these characters, never
  the end-of-document id, whether the tokenizer.json calls that token special or not; and nothing (no BOS, no
  padding, no truncation that a tokenizer.json may ask for) is added. Other added tokens that aren't special are read
  as single tokens, as by everybody. With `special_tokens="ids"` special tokens are too: for text that was rendered
  with a chat template;
- the end-of-document id is known, since it is appended to every document;
- it has a fingerprint, so that an index can tell whether a text was tokenised in its own way.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tokenizers

from corpus_teacher.errors import TokenizerError, is_panic

END_OF_DOCUMENT = "<|endoftext|>"
"""The special token that our own tokenizers append to a document."""

_SMALLEST_VOCAB = 257  # every byte, and the end of a document
_NUM_BYTES = 256
_LONGEST_WORD = 1000  # characters that a tokenizer is trained on in one piece, where no blank parts them
_LONGEST_TOKEN = 256  # bytes; in a run of a million zeros each merge would double the longest one

TokenIds = npt.NDArray[np.unsignedinteger[Any]]
SpecialTokens = Literal["text", "ids"]


class Tokenizer:
    """A fast tokenizer with an end-of-document id and a fingerprint.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        The tokenizer that does the work. Its padding, truncation and special-token handling are switched off.
    spec : str
        How the user named it, for messages and metadata.
    end_of_document : int, optional
        The id that ends a document.
    special_tokens : {"text", "ids"}
        How a text is read that contains the name of a special token: as ordinary text, or as that token.

    Examples
    --------
    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("ab").tolist(), tokenizer.end_of_document, tokenizer.vocab_size
    ([97, 98], 256, 257)
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        spec: str,
        end_of_document: int | None = None,
        special_tokens: SpecialTokens = "text",
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.spec = spec
        self.read_special_tokens(special_tokens)
        self._saved: bytes | None = None  # the tokenizer.json, where the backend no longer writes it
        vocab = backend.get_vocab(with_added_tokens=True)
        if not vocab:
            raise TokenizerError(f"the tokenizer {spec!r} has an empty vocabulary")
        self.vocab_size: int = max(vocab.values()) + 1
        if end_of_document is not None and not 0 <= end_of_document < self.vocab_size:
            raise TokenizerError(
                f"end-of-document id {end_of_document} is not an id of the tokenizer {spec!r}, "
                f"whose ids are 0 to {self.vocab_size - 1}"
            )
        self._end_of_document: int | None = None
        self.end_of_document = end_of_document

    @property
    def end_of_document(self) -> int | None:
        """The id that ends a document; a text never yields it as long as special tokens are text."""
        return self._end_of_document

    @end_of_document.setter
    def end_of_document(self, token: int | None) -> None:
        self._end_of_document = token
        added = None if token is None else self.backend.get_added_tokens_decoder().get(token)
        if added is not None and not added.special:  # else it would be matched in every text
            self._saved = self.to_bytes()
            self.backend.add_special_tokens([tokenizers.AddedToken(added.content, special=True)])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.spec!r}, vocab_size={self.vocab_size}, "
            f"end_of_document={self.end_of_document})"
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 where every id fits, else uint32."""
        return token_dtype(self.vocab_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what turns text into ids: vocabulary, merges, normaliser, pre-tokenizer, added tokens.

        Not of what a file holds beside: padding, truncation and the template of special tokens, which are never used
        here, and which transformers writes when it saves a tokenizer again.
        """
        content = json.loads(self.to_bytes())
        return _digest({**content, "padding": None, "truncation": None, "post_processor": None})

    @cached_property
    def file_fingerprint(self) -> str:
        """SHA-256 (hex) of the whole tokenizer.json, whatever its white space: what older caches hold."""
        return _digest(json.loads(self.to_bytes()))

    @cached_property
    def vocabulary(self) -> dict[int, str]:
        """The token of each id that has one, added tokens included."""
        return {token: text for text, token in self.backend.get_vocab(with_added_tokens=True).items()}

    def to_bytes(self) -> bytes:
        """The tokenizer as the bytes of a tokenizer.json, which `tokenizers` and `transformers` can load."""
        return self.backend.to_str().encode() if self._saved is None else self._saved

    def read_special_tokens(self, special_tokens: SpecialTokens) -> None:
        """From now on read the names of special tokens in a text as ordinary text, or as these tokens."""
        if special_tokens not in ("text", "ids"):
            raise TokenizerError(f"special tokens are read as 'text' or as 'ids', not as {special_tokens!r}")
        self.special_tokens: SpecialTokens = special_tokens
        self.backend.encode_special_tokens = special_tokens == "text"

    def encode(self, text: str) -> TokenIds:
        """Token ids of a text, shape (tokens,), uint16 or uint32; nothing is appended."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """Token ids of each text; the library works on all cores and outside of the GIL.

        Raises
        ------
        TokenizerError
            If a text can't be tokenised (a lone surrogate, say).
        """
        try:
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise TokenizerError(f"the tokenizer {self.spec!r} could not encode a document: {error}") from error
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]

    def encode_with_offsets(self, text: str) -> tuple[TokenIds, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token ids of a text, and the characters where each begins and ends: three arrays of shape (tokens,)."""
        return self.encode_batch_with_offsets([text])[0]

    def encode_batch_with_offsets(
        self, texts: list[str]
    ) -> list[tuple[TokenIds, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """`encode_with_offsets` of each text; slower than `encode_batch`.

        Raises
        ------
        TokenizerError
            If a text can't be tokenised.
        """
        try:
            encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise TokenizerError(f"the tokenizer {self.spec!r} could not encode a document: {error}") from error
        found = []
        for encoding in encodings:
            offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            found.append((np.array(encoding.ids, dtype=self.dtype), offsets[:, 0], offsets[:, 1]))
        return found

    def specials_in(self, text: str) -> Counter[str]:
        """How often the name of each special token stands in a text."""
        found: Counter[str] = Counter()
        for beginning, names in self._specials.items():
            if beginning in text:
                found.update({name: text.count(name) for name in names if name in text})
        return found

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest name of a token."""
        return max(map(len, self.backend.get_vocab(with_added_tokens=True)))

    @cached_property
    def _specials(self) -> dict[str, list[str]]:
        """Names of special tokens by their first two characters, which most texts don't contain at all."""
        specials: dict[str, list[str]] = {}
        for token in self.backend.get_added_tokens_decoder().values():
            if token.special and token.content:
                specials.setdefault(token.content[:2], []).append(token.content)
        return specials

    def decode(self, ids: Iterable[int] | npt.NDArray[Any]) -> str:
        """The text of token ids, special tokens included; bytes that are no UTF-8 become U+FFFD."""
        return str(self.backend.decode([int(token) for token in ids], skip_special_tokens=False))

    def token_text(self, token: int) -> str:
        """One token for a person to read: its text, or its name where it is only a part of a character."""
        text = self.decode([token])
        if text and "\ufffd" not in text:
            return text
        return str(self.backend.id_to_token(int(token)) or f"<{token}>")

    def find_token(self, name_or_id: str | int) -> int:
        """The id that a user means by `50256`, "50256" or "<|endoftext|>".

        Raises
        ------
        TokenizerError
            If the tokenizer has no such token.
        """
        if isinstance(name_or_id, int) or name_or_id.isdecimal():
            token: int | None = int(name_or_id)
        else:
            token = self.backend.token_to_id(name_or_id)
        if token is None or not 0 <= token < self.vocab_size:
            raise TokenizerError(
                f"{name_or_id!r} is no token of the tokenizer {self.spec!r} (ids 0 to {self.vocab_size - 1})"
            )
        return token

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        spec: str,
        end_of_document: int | None = None,
        special_tokens: SpecialTokens = "text",
    ) -> Tokenizer:
        """The inverse of `to_bytes`.

        Raises
        ------
        TokenizerError
            If the bytes are not a tokenizer.json.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(data.decode())
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise TokenizerError(f"{spec!r} is not a tokenizer.json: {error}") from error
        if backend.get_vocab(with_added_tokens=False) == _byte_vocab():
            return ByteTokenizer(spec=spec, special_tokens=special_tokens)
        return Tokenizer(backend, spec=spec, end_of_document=end_of_document, special_tokens=special_tokens)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8, and 256 for the end of a document; a tokenizer.json describes it as well."""

    def __init__(self, *, spec: str = "bytes", special_tokens: SpecialTokens = "text") -> None:
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=_byte_vocab(), merges=[]))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = tokenizers.decoders.ByteLevel()
        backend.add_special_tokens([END_OF_DOCUMENT])
        super().__init__(backend, spec=spec, end_of_document=_NUM_BYTES, special_tokens=special_tokens)

    def encode_batch(self, texts: list[str]) -> list[TokenIds]:
        """UTF-8 bytes as uint16; a thousand times as fast as the library."""
        if self.special_tokens == "ids":
            return super().encode_batch(texts)
        try:
            return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16) for text in texts]
        except UnicodeEncodeError as error:
            raise TokenizerError(f"a document can't be written as UTF-8: {error}") from error


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The narrowest storage of ids 0 .. V−1: uint16 or uint32."""
    return np.dtype(np.uint16) if vocab_size <= 1 << 16 else np.dtype(np.uint32)


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, spec: str | None = None) -> Tokenizer:
    """Train a byte-level BPE tokenizer on a stream of texts.

    Parameters
    ----------
    texts : iterable of str
        Read once; only the table of distinct words is kept.
    vocab_size : int
        V, at least 257: every byte and `<|endoftext|>`, which ends documents and has id 0. A small corpus may
        have fewer merges than asked for: then the vocabulary is smaller.
    spec : str, optional
        Its name in messages and metadata; `train:VOCAB` by default.

    Raises
    ------
    TokenizerError
        If vocab_size is below 257.
    """
    if vocab_size < _SMALLEST_VOCAB:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} is too small to train: every byte and {END_OF_DOCUMENT} "
            f"need {_SMALLEST_VOCAB}; ask for more, or use the tokenizer 'bytes'"
        )
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        max_token_length=_LONGEST_TOKEN,
    )
    backend.train_from_iterator(_batches(_without_long_words(texts)), trainer=trainer)
    return Tokenizer(backend, spec=spec or f"train:{vocab_size}", end_of_document=backend.token_to_id(END_OF_DOCUMENT))


def parse_vocab_size(spec: str) -> int | None:
    """VOCAB of `train:VOCAB` ("train:8192", "train:8k" = 8192), or None where the spec is another one.

    Raises
    ------
    TokenizerError
        If VOCAB is not a number.
    """
    if not spec.startswith("train:"):
        return None
    number = spec.removeprefix("train:").lower()
    scale = 1024 if number.endswith("k") else 1
    digits = number.removesuffix("k")
    if not digits.isdecimal():
        raise TokenizerError(f"{spec!r} does not say how many tokens to train: write train:VOCAB, train:8192 for one")
    return int(digits) * scale


def _byte_vocab() -> dict[str, int]:
    """The byte-level alphabet with each byte's value as its id (Radford et al. 2019: printable stand-ins)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(_NUM_BYTES) if byte not in printable]
    vocab = {chr(byte): byte for byte in printable}
    vocab.update({chr(_NUM_BYTES + number): byte for number, byte in enumerate(others)})
    return vocab


def _without_long_words(texts: Iterable[str]) -> Iterator[str]:
    """The texts, cut where 1,000 characters are one word or one blank: the trainer is quadratic in a word's length."""
    for text in texts:
        begin = 0
        for place in range(0, len(text) - _LONGEST_WORD, _LONGEST_WORD):
            piece = text[place : place + _LONGEST_WORD]
            if (" " not in piece and "\n" not in piece) or piece.isspace():
                yield text[begin : place + _LONGEST_WORD]
                begin = place + _LONGEST_WORD
        yield text[begin:] if begin else text


def _batches(texts: Iterable[str], max_chars: int = 1 << 20) -> Iterator[Sequence[str]]:
    """Lists of texts of about a megabyte: what the trainer counts in one go on all cores."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= max_chars:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
