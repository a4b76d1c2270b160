"""A shard that is open in another process, or on another machine: its facts here, its answers from there.

It stands in a `ShardedIndex` where an opened index would. Questions to all shards at once go through `asking.ask_all`;
the methods here are for what asks a single shard. Arrays are read by places: a slice is a copy that travels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from corpus_index.core.answers import DocumentInfo, DocumentVotes, Match, NextTokens, NextTokensBatch, NodeRows
from corpus_index.errors import QueryError
from corpus_index.index import CorpusIndex
from corpus_index.names import NamedDocument
from corpus_index.sharded.asking import ShardHost

_EAGER = 1 << 22  # a longer slice stays where it is
_NAMES = 1 << 12  # that travel at a time
_TOKEN_IDS = ""  # as the name of an array: the tokens as ids, which `array("tokens")` gives as symbols


class ShardFacts(NamedTuple):
    """What an opened shard says of itself; see `CorpusIndex` for what has the same name there."""

    path: str
    fingerprint: str
    num_tokens: int
    num_documents: int
    vocab_size: int
    metadata: dict[str, Any]
    end_of_document: int | None
    num_starts: int
    num_symbols: int
    light: int
    deepest: int
    layout: str
    size_bytes: dict[str, int]
    is_checked: bool
    attachment_names: tuple[str, ...]
    has_names: bool
    alphabet: np.ndarray | None
    shapes: dict[str, tuple[tuple[int, ...], str]]


def facts_of(shard: CorpusIndex) -> ShardFacts:
    """The facts of a shard; to be asked where it is open."""
    shapes = shard.array_shapes()
    shapes[_TOKEN_IDS] = ((shard.num_tokens,), shard.tokens.dtype.str)
    return ShardFacts(
        path=str(shard.path),
        fingerprint=shard.fingerprint,
        num_tokens=shard.num_tokens,
        num_documents=shard.num_documents,
        vocab_size=shard.vocab_size,
        metadata=shard.metadata,
        end_of_document=shard.end_of_document,
        num_starts=shard.num_starts,
        num_symbols=shard.num_symbols,
        light=shard.light,
        deepest=shard.deepest,
        layout=shard.layout,
        size_bytes=shard.size_bytes,
        is_checked=shard.is_checked,
        attachment_names=shard.attachment_names,
        has_names=shard.document_names is not None,
        alphabet=np.array(shard.array("alphabet")) if "alphabet" in shapes else None,
        shapes=shapes,
    )


class ShardElsewhere(CorpusIndex):
    """One shard of a host.

    Parameters
    ----------
    host : ShardHost
    number : int
        By which the host knows it.
    facts : ShardFacts
    """

    def __init__(self, host: ShardHost, number: int, facts: ShardFacts) -> None:
        self.host, self.number, self.facts = host, number, facts
        self.path = Path(facts.path)
        self.num_tokens, self.num_documents, self.vocab_size = facts.num_tokens, facts.num_documents, facts.vocab_size
        self.metadata, self.end_of_document, self.fingerprint = facts.metadata, facts.end_of_document, facts.fingerprint
        self._doc_starts: np.ndarray | None = None
        self._symbol_counts: np.ndarray | None = None

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(shard, *arguments)` where the shard is open."""
        return self.host.ask(function, [self.number], [arguments])[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardElsewhere, (self.host, self.number, self.facts)

    def __repr__(self) -> str:
        return f"ShardElsewhere({str(self.path)!r}: {self.num_tokens:,} tokens, {self.num_documents:,} documents)"

    def close(self) -> None:
        """Nothing: the host lets go of the files."""

    def prefer_large_pages(self) -> None:
        """As `CorpusIndex.prefer_large_pages`, there."""
        self.ask(methodcaller("prefer_large_pages"))

    def check_files(self) -> None:
        """As `CorpusIndex.check_files`, there."""
        self.ask(methodcaller("check_files"))

    def check_addresses(self) -> None:
        """As `CorpusIndex.check_addresses`, there."""
        self.ask(methodcaller("check_addresses"))

    # what it is

    @property
    def is_checked(self) -> bool:
        """Whether the files were compared with their checksums when the shard was opened."""
        return self.facts.is_checked

    @property
    def size_bytes(self) -> dict[str, int]:
        """Bytes on disk by file."""
        return self.facts.size_bytes

    @property
    def num_starts(self) -> int:
        """Documents that hold at least one token."""
        return self.facts.num_starts

    @property
    def num_symbols(self) -> int:
        """V, or the number of distinct tokens where the vocabulary is far larger than the shard."""
        return self.facts.num_symbols

    @property
    def light(self) -> int:
        """As `CorpusIndex.light`."""
        return self.facts.light

    @property
    def deepest(self) -> int:
        """As `CorpusIndex.deepest`."""
        return self.facts.deepest

    @property
    def layout(self) -> str:
        """As `CorpusIndex.layout`."""
        return self.facts.layout

    @property
    def attachment_names(self) -> tuple[str, ...]:
        """The extra files that were stored with it."""
        return self.facts.attachment_names

    def attachment(self, name: str) -> bytes:
        """An extra file that was stored with it."""
        return bytes(self.ask(methodcaller("attachment", name)))

    @property
    def document_names(self) -> Any:
        """Names of all documents, read by number; None where it was built without."""
        return _NamesElsewhere(self) if self.facts.has_names else None

    def document(self, number: int) -> DocumentInfo:
        """What is known of a document by its number."""
        found: DocumentInfo = self.ask(methodcaller("document", number))
        return found

    def ids_of(self, symbols: np.ndarray) -> np.ndarray:
        """Token ids of symbols."""
        return symbols if self.facts.alphabet is None else self.facts.alphabet[symbols]

    def symbols_of(self, ids: np.ndarray) -> np.ndarray:
        """Symbols of token ids; num_symbols for one that the shard lacks."""
        alphabet = self.facts.alphabet
        if alphabet is None:
            return ids
        symbols = np.searchsorted(alphabet, ids)
        known = alphabet[np.minimum(symbols, alphabet.size - 1)] == ids
        return np.where(known, symbols, self.num_symbols)

    # arrays

    def array(self, name: str) -> np.ndarray:
        """One of the arrays of the format, read by places: an `ArrayElsewhere`."""
        if name not in self.facts.shapes or name == _TOKEN_IDS:
            raise QueryError(f"the format has no array {name!r}: see index/README.md")
        return self._array(name)

    def _array(self, name: str) -> np.ndarray:
        shape, dtype = self.facts.shapes[name]
        return ArrayElsewhere(self, name, dtype, shape)  # type: ignore[return-value]

    @property
    def tokens(self) -> np.ndarray:
        """The shard's text: shape (N,), ids, read by places."""
        return self._array(_TOKEN_IDS)

    @property
    def doc_starts(self) -> np.ndarray:
        """Offsets of the documents: shape (D + 1,), int64; fetched at the first use."""
        if self._doc_starts is None:
            self._doc_starts = np.asarray(self._array("doc_starts"), np.int64)
        return self._doc_starts

    @property
    def symbol_counts(self) -> np.ndarray:
        """How often each symbol occurs: shape (num_symbols,), int64; fetched at the first use."""
        if self._symbol_counts is None:
            self._symbol_counts = self.ask(_symbol_counts)
        return self._symbol_counts

    def kernel_arrays(self) -> Any:
        """Not here.

        Raises
        ------
        QueryError
        """
        raise QueryError(f"the shard {self.path.name} is open elsewhere: ask it there, with `ask`")

    # questions

    def count(self, ngram: ArrayLike) -> int:
        """As `CorpusIndex.count`."""
        return int(self.ask(methodcaller("count", ngram)))

    def positions(self, ngram: ArrayLike, limit: int | None = None) -> np.ndarray:
        """As `CorpusIndex.positions`."""
        return np.asarray(self.ask(methodcaller("positions", ngram, limit)))

    def next_tokens(self, context: ArrayLike, **options: Any) -> NextTokens:
        """As `CorpusIndex.next_tokens`."""
        found: NextTokens = self.ask(methodcaller("next_tokens", context, **options))
        return found

    def documents_of(self, context: ArrayLike, next_token: int | None = None, **options: Any) -> DocumentVotes:
        """As `CorpusIndex.documents_of`."""
        found: DocumentVotes = self.ask(methodcaller("documents_of", context, next_token, **options))
        return found

    def match_nodes(self, input_ids: ArrayLike, **options: Any) -> tuple[Match, np.ndarray]:
        """As `CorpusIndex.match_nodes`."""
        found: tuple[Match, np.ndarray] = self.ask(methodcaller("match_nodes", input_ids, **options))
        return found

    def next_tokens_batch(self, input_ids: ArrayLike, **options: Any) -> NextTokensBatch:
        """As `CorpusIndex.next_tokens_batch`."""
        found: NextTokensBatch = self.ask(methodcaller("next_tokens_batch", input_ids, **options))
        return found

    def rows_of(self, match: Match) -> NextTokensBatch:
        """As `CorpusIndex.rows_of`."""
        found: NextTokensBatch = self.ask(methodcaller("rows_of", match))
        return found

    def rows_of_nodes(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> NodeRows:
        """As `CorpusIndex.rows_of_nodes`."""
        found: NodeRows = self.ask(methodcaller("rows_of_nodes", lo, hi, depth))
        return found


class ArrayElsewhere:
    """An array of a shard that is open elsewhere: slices and places of the first axis travel, and nothing else.

    Slices of at most 4 million entries are copies; longer ones of step 1 stay there. `numpy.asarray` fetches all.
    """

    def __init__(
        self, shard: ShardElsewhere, name: str, dtype: DTypeLike, shape: tuple[int, ...], begin: int = 0
    ) -> None:
        self._shard, self._name, self._begin = shard, name, begin
        self.dtype, self.shape = np.dtype(dtype), shape

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Entries."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"ArrayElsewhere({self._name or 'token ids'!r}: {self.dtype} of {self.shape})"

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            rest = key[1:] if isinstance(key[0], (int, np.integer)) else (slice(None), *key[1:])
            return np.asarray(self[key[0]])[rest]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                cut = ArrayElsewhere(
                    self._shard, self._name, self.dtype, (max(0, stop - start), *self.shape[1:]), self._begin + start
                )
                return cut if len(cut) > _EAGER else cut.__array__()
            key = np.arange(start, stop, step)
        places = np.asarray(key)
        if places.dtype.kind == "b":
            places = np.flatnonzero(places)
        places = np.where(places < 0, places + len(self), places)
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < len(self):
            raise IndexError(f"a place is outside of 0 .. {len(self) - 1:,}")
        if places.size == 0:
            return np.empty((*places.shape, *self.shape[1:]), self.dtype)
        found = self._shard.ask(_entries, self._name, places.astype(np.int64) + self._begin)
        return found[()] if places.ndim == 0 else found

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, len(self), _EAGER):
            yield from self[begin : min(len(self), begin + _EAGER)]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array that lies elsewhere can't be here without a copy")
        whole = np.empty(self.shape, self.dtype)
        for begin in range(0, len(self), _EAGER):
            end = min(len(self), begin + _EAGER)
            whole[begin:end] = self._shard.ask(_entries, self._name, slice(self._begin + begin, self._begin + end))
        return whole.astype(self.dtype if dtype is None else dtype, copy=False)

    def astype(self, dtype: DTypeLike, copy: bool = True) -> np.ndarray:
        """All of it here, in another type."""
        return self.__array__(dtype)

    def tolist(self) -> list[Any]:
        """All of it as a list."""
        return list(self.__array__().tolist())


class _NamesElsewhere:
    """Names of documents by number."""

    def __init__(self, shard: ShardElsewhere) -> None:
        self._shard = shard

    def __len__(self) -> int:
        return self._shard.num_documents

    def __getitem__(self, number: int) -> NamedDocument:
        found: list[NamedDocument] = self._shard.ask(_names, number, number + 1)
        return found[0]

    def __iter__(self) -> Iterator[NamedDocument]:
        for begin in range(0, len(self), _NAMES):
            yield from self._shard.ask(_names, begin, min(len(self), begin + _NAMES))


def _entries(shard: CorpusIndex, name: str, key: Any) -> np.ndarray:
    """Entries of an array, as a copy."""
    return np.array((shard.tokens if name == _TOKEN_IDS else shard.array(name))[key])


def _names(shard: CorpusIndex, begin: int, end: int) -> list[NamedDocument]:
    names = shard.document_names
    assert names is not None
    return [names[number] for number in range(begin, end)]


def _symbol_counts(shard: CorpusIndex) -> np.ndarray:
    return shard.symbol_counts
