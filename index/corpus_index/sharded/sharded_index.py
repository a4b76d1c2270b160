"""Several indexes that answer as one; `open_index` opens either kind.

Naively: `build_index` over all documents. Here each shard is asked, and what they count is added before estimators
weigh it: every whole number is that of one index over everything, and so is every probability, up to the last digits
where a sum runs in another order. Positions and documents are numbered through all shards, in 64 bits.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import cached_property, partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index import files
from corpus_index._kernels.arrays import read_only
from corpus_index._kernels.target_arrays import HeavyNodes
from corpus_index.core.answers import DocumentInfo, DocumentVotes, Match, NextTokens, NextTokensBatch, NodeRows
from corpus_index.core.chains import Gathered, gather
from corpus_index.core.checks import check_integer, check_match_options, check_whole
from corpus_index.core.matching import as_context
from corpus_index.core.scratch import ThreadMemory
from corpus_index.errors import IndexFormatError, QueryError
from corpus_index.estimators.resolving import EstimatorLike
from corpus_index.index import CorpusIndex
from corpus_index.integrity import Check, believe
from corpus_index.manifest import MANIFEST, as_folder
from corpus_index.shard_manifest import SHARDS_FORMAT, entries_of, format_of, likely_format_of, load_shards_manifest
from corpus_index.sharded.asking import ask_all
from corpus_index.sharded.masked_shard import open_shard
from corpus_index.sharded.pieces import NamesInPieces, Pieces, TokenPieces
from corpus_index.sharded.row_store import RowStore
from corpus_index.sharded.shard_answers import Pairs, counts_of_ids, pairs_in, votes_in
from corpus_index.sharded.union import added_pairs, union_chains
from corpus_index.targets.scorer import Scorer

_TRIES = 200  # to open one version while others replace it
_PAUSE_S = 0.005
_ROW_ARRAYS = {"row_offsets": np.int64, "row_tokens": np.uint32, "row_counts": np.uint32}


def open_index(path: str | os.PathLike[str], *, check: Check = "first") -> CorpusIndex:
    """Open an index, of one piece or of shards.

    Parameters
    ----------
    path : path
        The folder that `build_index` or `index build` wrote.
    check : {"always", "first", "never"}
        When files are compared with their checksums; see `CorpusIndex.open`.

    Returns
    -------
    CorpusIndex
        A `ShardedIndex` where the folder holds shards.

    Raises
    ------
    IndexFormatError
        If there is no index, it is damaged or foreign, or of a newer format.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from corpus_index import build_index
    >>> path = tempfile.mkdtemp() + "/index"
    >>> build_index(np.array([1, 2, 1, 2, 3]), path, doc_starts=[0, 2, 5], shard_tokens=3).close()
    >>> with open_index(path) as index:
    ...     len(index.shards), index.count([1, 2])
    (2, 2)
    """
    path = as_folder(path)
    for _ in range(_TRIES):
        kind = likely_format_of(path)
        try:
            return ShardedIndex(path, check) if kind == SHARDS_FORMAT else CorpusIndex(path, check)
        except IndexFormatError:
            if format_of(path) in (kind, None):  # else an index of the other kind has taken its place
                raise
    raise IndexFormatError(f"{path} is being replaced again and again: open it later")


class ShardedIndex(CorpusIndex):
    """The indexes of a sharded folder, opened; answers whatever `CorpusIndex` answers, for all documents together.

    Ranks are a shard's own, so there is no order of all contexts: in the answer of `match`, lo is a rank of the first
    shard that has the match, plus that shard's first position (as which `array("order")` reads it), and hi − lo is
    the count in all shards. `array` gives "tokens", "order" and "doc_starts"; the rows of `next_tokens_batch` and
    of `mixed_targets` are the batch's own, since none are stored.

    Attributes
    ----------
    shards : list of CorpusIndex
    first_positions, first_documents : ndarrays of shape (S + 1,), int64
        Where each shard's text and documents begin, and the ends.
    entries : list of ShardEntry
        What the manifest says of each shard, its mask included.
    history : list of dict
        What was done to the folder, and when.
    """

    def __init__(self, path: str | os.PathLike[str], check: str = "first") -> None:
        self.path = as_folder(path)
        manifest, shards = _open_shards(self.path, check)
        self.take_over(manifest, shards)

    def take_over(self, manifest: dict[str, Any], shards: list[CorpusIndex]) -> None:
        """Become the index of shards that were opened, here or elsewhere: for constructors."""
        self._manifest, self.shards = manifest, shards
        self.entries = entries = entries_of(manifest)
        self.first_positions = np.cumsum([0, *(entry.num_tokens for entry in entries)]).astype(np.int64)
        self.first_documents = np.cumsum([0, *(entry.num_documents for entry in entries)]).astype(np.int64)
        self.num_tokens, self.num_documents = int(self.first_positions[-1]), int(self.first_documents[-1])
        self.vocab_size = manifest["vocab_size"]
        self.metadata = manifest["metadata"]
        self.end_of_document = self.metadata.get("end_of_document")
        self.fingerprint = manifest["fingerprint"]
        self.history: list[dict[str, Any]] = list(manifest["history"])
        self.thread_memory = ThreadMemory()
        self._stores: dict[bool, RowStore] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check: Check = "first") -> ShardedIndex:
        """Open the sharded index at path; errors and `check` as of `CorpusIndex.open`."""
        return cls(path, check)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.fingerprint, [shard._checked for shard in self.shards])

    def __repr__(self) -> str:
        return (
            f"ShardedIndex({str(self.path)!r}: {self.num_tokens:,} tokens, {self.num_documents:,} documents, "
            f"vocabulary {self.vocab_size:,}, {len(self.shards)} shards)"
        )

    def close(self) -> None:
        """Let go of the files of all shards."""
        for shard in self.shards:
            shard.close()

    def prefer_large_pages(self) -> None:
        """As of each shard; see `CorpusIndex.prefer_large_pages`."""
        for shard in self.shards:
            shard.prefer_large_pages()

    # what it is

    @property
    def is_checked(self) -> bool:
        """Whether the files of all shards were compared with their checksums."""
        return all(shard.is_checked for shard in self.shards)

    @property
    def size_bytes(self) -> dict[str, int]:
        """Bytes on disk by kind of file, of all shards together."""
        sizes: Counter[str] = Counter()
        for shard in self.shards:
            sizes.update(shard.size_bytes)
        return dict(sizes)

    @property
    def layout(self) -> str:
        """The layout of the shards; where they have several, all of them."""
        return " and ".join(sorted({shard.layout for shard in self.shards}, reverse=True))

    def whole_text(self) -> Any:
        """There is none of all shards; as `kernel_arrays`.

        Raises
        ------
        QueryError
        """
        return self.kernel_arrays()

    @property
    def num_starts(self) -> int:
        """Documents that hold at least one token."""
        return sum(shard.num_starts for shard in self.shards)

    @property
    def light(self) -> int:
        """The largest of the shards'."""
        return max(shard.light for shard in self.shards)

    @property
    def deepest(self) -> int:
        """The least of the shards'."""
        return min(shard.deepest for shard in self.shards)

    @property
    def num_symbols(self) -> int:
        """V: here symbols are the ids."""
        return self.vocab_size

    def ids_of(self, symbols: np.ndarray) -> np.ndarray:
        """The ids themselves."""
        return symbols

    def symbols_of(self, ids: np.ndarray) -> np.ndarray:
        """The ids themselves."""
        return ids

    @property
    def token_type(self) -> np.dtype[Any]:
        """Of ids: uint16, or uint32 where V is above 65,536."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    @property
    def tokens(self) -> np.ndarray:
        """The corpus: `TokenPieces` of shape (N,), uint16 or uint32, read like an array."""
        return TokenPieces([shard.tokens for shard in self.shards], self.token_type)  # type: ignore[return-value]

    @cached_property
    def doc_starts(self) -> np.ndarray:
        """Offsets of the documents: shape (D + 1,), int64."""
        parts = [shard.doc_starts[:-1] + first for shard, first in zip(self.shards, self.first_positions, strict=False)]
        return np.append(np.concatenate(parts), self.num_tokens)

    def array(self, name: str) -> np.ndarray:
        """The arrays that there are of all shards: "tokens", "order", "doc_starts"; and no stored rows."""
        if name == "tokens":
            return self.tokens
        if name == "doc_starts":
            return self.doc_starts
        if name == "order":
            orders = [shard.array("order") for shard in self.shards]
            return Pieces(orders, np.int64, self.first_positions[:-1].tolist())  # type: ignore[return-value]
        if name in _ROW_ARRAYS:
            return np.zeros(int(name == "row_offsets"), _ROW_ARRAYS[name])
        raise QueryError(f"the array {name!r} is each shard's own: ask `shards` for it")

    def check_addresses(self) -> None:
        """As of each shard.

        Raises
        ------
        IndexFormatError
        """
        for shard in self.shards:
            shard.check_addresses()

    def kernel_arrays(self) -> Any:
        """There are none of all shards.

        Raises
        ------
        QueryError
        """
        raise QueryError(f"{self.path} holds shards, which have no arrays in common: ask `shards` for theirs")

    @property
    def attachment_names(self) -> tuple[str, ...]:
        """The extra files that were stored with the first shard."""
        return self.shards[0].attachment_names

    def attachment(self, name: str) -> bytes:
        """An extra file that was stored with the first shard, such as the tokenizer, which all have in common."""
        return self.shards[0].attachment(name)

    @property
    def document_names(self) -> Any:
        """Names of all documents; None where a shard was built without."""
        parts = [shard.document_names for shard in self.shards]
        return NamesInPieces([part for part in parts if part is not None]) if None not in parts else None

    def document(self, number: int) -> DocumentInfo:
        """What is known of a document by its number; as `CorpusIndex.document`."""
        check_integer(number, "document")
        if not 0 <= number < self.num_documents:
            raise QueryError(f"there is no document {number:,}: documents are 0 .. {self.num_documents - 1:,}")
        shard = int(np.searchsorted(self.first_documents, number, side="right")) - 1
        found = self.shards[shard].document(number - int(self.first_documents[shard]))
        return found._replace(number=number, start=found.start + int(self.first_positions[shard]))

    # counted over the whole

    @cached_property
    def symbol_counts(self) -> np.ndarray:
        """How often each id occurs: shape (V,), int64."""
        return np.sum(ask_all(counts_of_ids, self.shards), axis=0)

    @cached_property
    def root_pairs(self) -> Pairs:
        """All (symbol before, token) of the corpus; O(N log N) at the first use."""
        return added_pairs(ask_all(pairs_in, self.shards))

    @cached_property
    def left_counts(self) -> np.ndarray:
        """After how many distinct symbols each id stands: shape (V,), int64; O(N log N) at the first use."""
        tokens = self.root_pairs.codes // (self.vocab_size + 1)
        return np.bincount(tokens, minlength=self.vocab_size).astype(np.int64)

    def heavy_nodes(self, left: bool) -> HeavyNodes:
        """No rows are stored."""
        nothing, tokens = read_only(np.zeros(0, np.uint32)), read_only(np.zeros(0, self.token_type))
        return HeavyNodes(
            table=np.zeros((0, 16), np.uint32),
            narrowest=np.zeros(0, np.uint32),
            buckets=np.zeros(0, np.uint32),
            bounds=nothing,
            directory=nothing,
            shift=0,
            light=0,
            deepest=0,
            deepest_chain=0,
            offsets=read_only(np.zeros(1, np.int64)),
            tokens=tokens,
            counts=nothing,
            lefts=nothing,
        )

    def stored_left_extensions(self) -> tuple[np.ndarray, np.ndarray]:
        """No rows are stored."""
        return np.zeros(0, np.uint32), np.zeros(0, np.uint32)

    # one context

    def count(self, ngram: ArrayLike) -> int:
        """How often an n-gram stands in the corpus, inside documents; the sum of the shards' counts."""
        return sum(ask_all(methodcaller("count", ngram), self.shards))

    def positions(self, ngram: ArrayLike, limit: int | None = None) -> np.ndarray:
        """Where an n-gram stands; as `CorpusIndex.positions`. With a limit, those of the first shards."""
        check_whole(limit, "limit", 0, most=2**62, none="all")
        found, missing = [np.zeros(0, np.int64)], limit
        for shard, first in zip(self.shards, self.first_positions, strict=False):
            if missing == 0 and len(found) > 1:
                break
            found.append(shard.positions(ngram, missing) + first)
            missing = None if missing is None else missing - found[-1].size
        return np.concatenate(found)

    def next_tokens(
        self,
        context: ArrayLike,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool = False,
    ) -> NextTokens:
        """All continuations of the longest suffix of a context that occurs often enough; as `CorpusIndex.next_tokens`.

        The suffix that occurs min_count times in all shards together is looked for order by order where min_count is
        above 1.
        """
        ids = as_context(context, self.vocab_size)
        if ids.size == 0:
            check_match_options(min_count, max_order)
            if starts_document and self.num_starts >= min_count and max_order != 0:
                question = methodcaller("next_tokens", ids, starts_document=True)
                return _summed(ask_all(question, self.shards), self.token_type)
            there = np.flatnonzero(self.symbol_counts)
            counts = self.symbol_counts[there]
            return NextTokens(there.astype(self.token_type), counts, 0, self.num_tokens)
        found = self.next_tokens_batch(
            ids[None], max_order=max_order, min_count=min_count, starts_document=starts_document, only_last=True
        )
        return found.at(0, 0)

    def documents_of(
        self,
        context: ArrayLike,
        next_token: int | None = None,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool = False,
        leave_out: int | None = None,
        limit: int | None = None,
    ) -> DocumentVotes:
        """Which documents taught what follows a context; as `CorpusIndex.documents_of`."""
        check_whole(limit, "limit", 0, most=2**62, none="all")
        ids = as_context(context, self.vocab_size)
        length, order = 0, 0
        if ids.size:
            match, depths = self.match_nodes(
                ids[None], max_order=max_order, min_count=min_count, starts_document=starts_document
            )
            length, order = int(match.match_len[0, -1]), int(depths[0, -1])
        elif starts_document and self.num_starts >= min_count and max_order != 0:
            order = 1
        question = partial(votes_in, context=ids, next_token=next_token, order=order, starts_document=starts_document)
        documents, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for votes, first in zip(ask_all(question, self.shards), self.first_documents, strict=False):
            if votes is not None:
                documents.append(votes.documents + first)
                counts.append(votes.counts)
        numbers, votes_of = np.concatenate(documents), np.concatenate(counts)
        kept = np.ones(numbers.size, np.bool_) if leave_out is None else numbers != leave_out
        numbers, votes_of = numbers[kept], votes_of[kept]
        first_ones = np.lexsort((numbers, -votes_of))[:limit]
        return DocumentVotes(numbers[first_ones], votes_of[first_ones], length, int(votes_of.sum()))

    # batches

    def match_nodes(
        self,
        input_ids: ArrayLike,
        *,
        min_count: int = 1,
        max_order: int | None = None,
        starts_document: bool | ArrayLike = False,
    ) -> tuple[Match, np.ndarray]:
        """The longest match of every position, and its depth; ranks as the class says.

        With min_count above 1 every node of every chain is looked at.
        """
        check_match_options(min_count, max_order)
        options: dict[str, Any] = {"max_order": max_order, "starts_document": starts_document}
        if min_count > 1:
            return self._match_often(input_ids, min_count, options)
        found = ask_all(methodcaller("match_nodes", input_ids, **options), self.shards)
        depth = np.max(np.stack([depths for _, depths in found]), axis=0)
        lo, count = np.full(depth.shape, -1, np.int64), np.zeros(depth.shape, np.int64)
        match_len = np.zeros(depth.shape, np.int32)
        for (match, depths), first in zip(found, self.first_positions, strict=False):
            reached = depths == depth
            lo = np.where(reached & (lo < 0), match.lo + first, lo)
            count += np.where(reached, match.hi - match.lo, 0)
            match_len = np.where(reached, match.match_len, match_len)
        return Match(lo, lo + count, match_len.astype(np.int32)), depth

    def _match_often(self, input_ids: ArrayLike, min_count: int, options: dict[str, Any]) -> tuple[Match, np.ndarray]:
        """`match_nodes` by the counts of all nodes."""
        whole, depths = self.match_nodes(input_ids, **options)
        chains = self.gathered(input_ids, **options)
        totals = np.append(0, np.cumsum(chains.row_counts))[chains.row_offsets]
        counts = np.diff(totals)[chains.rows]
        enough = (counts >= min_count) | (chains.depths == 0)
        place = np.flatnonzero(enough)[np.searchsorted(np.flatnonzero(enough), chains.offsets[:-1])]
        depth = chains.depths[place].reshape(depths.shape).astype(depths.dtype)
        started = depths - whole.match_len
        match_len = np.where(depth == depths, depth - started, depth).astype(np.int32)
        lo = np.zeros(depth.shape, np.int64)
        for order in np.unique(depth).tolist():  # any place of each match
            here = depth == order
            lo[here] = self.match_nodes(input_ids, **options | {"max_order": order})[0].lo[here]
        return Match(lo, lo + counts[place].reshape(depth.shape), match_len), depth

    def next_tokens_batch(
        self,
        input_ids: ArrayLike,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool | ArrayLike = False,
        only_last: bool = False,
    ) -> NextTokensBatch:
        """`next_tokens` for every context input_ids[b, : t + 1]; all rows are the batch's own."""
        options: dict[str, Any] = {"max_order": max_order, "starts_document": starts_document}
        match, depth = self.match_nodes(input_ids, min_count=min_count, **options)
        if only_last:
            match, depth = Match(*(part[:, -1:] for part in match)), depth[:, -1:]
        chains = self.gathered(input_ids, only_last=only_last, **options)
        of = np.repeat(np.arange(depth.size), np.diff(chains.offsets))
        place = np.flatnonzero(chains.depths >= depth.reshape(-1)[of])
        last = place[np.searchsorted(of[place], np.arange(depth.size), side="right") - 1]
        used, rows = np.unique(chains.rows[last], return_inverse=True)
        sizes = np.diff(chains.row_offsets)[used]
        ends = np.append(0, np.cumsum(sizes)).astype(np.int64)
        places = np.arange(int(ends[-1])) + np.repeat(chains.row_offsets[used] - ends[:-1], sizes)
        nothing = np.zeros(0, np.int64)
        return NextTokensBatch(
            match,
            rows.reshape(depth.shape),
            ends,
            chains.row_tokens[places].astype(self.token_type),
            chains.row_counts[places],
            np.zeros(1, np.int64),
            nothing.astype(self.token_type),
            nothing,
        )

    def scorer(self, estimator: EstimatorLike = "modified-kneser-ney", max_order: int = 4) -> Scorer:
        """Not here: its tables are in the order of one index's contexts.

        Raises
        ------
        QueryError
        """
        raise QueryError("a scorer's tables are of one index: ask next_probabilities, or merge the shards into one")

    def rows_of(self, match: Match) -> NextTokensBatch:
        """Not here: a match's ranks are one shard's.

        Raises
        ------
        QueryError
        """
        raise QueryError("ranks are a shard's own, so a match says not enough: ask next_tokens_batch for the rows")

    def rows_of_nodes(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> NodeRows:
        """Not here: a node's ranks are one shard's.

        Raises
        ------
        QueryError
        """
        raise QueryError("ranks are a shard's own: ask next_tokens_batch, or `shards`")

    def gathered(
        self,
        input_ids: ArrayLike,
        *,
        max_order: int | None = None,
        starts_document: bool | ArrayLike = False,
        left: bool = False,
        only_last: bool = False,
        stored: bool = False,
    ) -> Gathered:
        """The chains of a batch in all shards together; see `union.union_chains`."""
        return union_chains(
            self.shards,
            self.first_positions,
            (self.symbol_counts, self.left_counts if left else self.symbol_counts),
            self.root_pairs if left else None,
            input_ids,
            max_order=max_order,
            starts_document=starts_document,
            left=left,
            only_last=only_last,
            store=self.row_store(left) if stored else None,
        )

    def row_store(self, left: bool) -> RowStore:
        """The rows of wide contexts that were asked for so far, with left extensions or without."""
        found = self._stores.get(left)
        if found is None:  # of threads that ask at once, all get the one that is set first: its rows are numbered
            found = self._stores.setdefault(left, RowStore(self.num_symbols, left, self.light))
        return found


@gather.register
def _(index: ShardedIndex, input_ids: ArrayLike, **options: Any) -> Gathered:
    return index.gathered(input_ids, **options)


def _summed(parts: list[NextTokens], dtype: np.dtype[Any]) -> NextTokens:
    """Continuations of one context in several indexes."""
    tokens, where = np.unique(np.concatenate([part.token_ids for part in parts]), return_inverse=True)
    counts = np.zeros(tokens.size, np.int64)
    np.add.at(counts, where.reshape(-1), np.concatenate([part.counts for part in parts]).astype(np.int64))
    return NextTokens(tokens.astype(dtype), counts, parts[0].match_len, int(counts.sum()))


def _open_shards(path: Path, check: str) -> tuple[dict[str, Any], list[CorpusIndex]]:
    """The manifest and all shards of one version, though it be replaced meanwhile."""
    problem: Exception | None = None
    for _ in range(_TRIES):
        shards: list[CorpusIndex] = []
        manifest: dict[str, Any] | None = None
        try:
            manifest = load_shards_manifest(path)
            for entry in entries_of(manifest):
                shards.append(open_shard(path, entry, check))
                if shards[-1].vocab_size != manifest["vocab_size"]:
                    raise IndexFormatError(f"{path / entry.name} is not the shard that {path / MANIFEST} names")
            return manifest, shards
        except (FileNotFoundError, IndexFormatError) as error:
            for shard in shards:
                shard.close()
            problem = error
            if not _was_replaced(path, manifest):
                break
            time.sleep(_PAUSE_S)
    if isinstance(problem, IndexFormatError):
        raise problem
    raise IndexFormatError(f"there is no index at {path}: give the folder that `index build` wrote") from problem


def _was_replaced(path: Path, manifest: dict[str, Any] | None) -> bool:
    """Whether another version has the name by now, or will have it in a moment."""
    if files.is_being_replaced(path):
        return True
    try:
        return manifest is not None and load_shards_manifest(path)["fingerprint"] != manifest["fingerprint"]
    except (OSError, IndexFormatError):
        return False


def _reopen(path: str, fingerprint: str, checked: list[str]) -> CorpusIndex:
    for name in checked:
        believe(name)  # the same files aren't checked again for each worker
    index = open_index(path, check="first" if all(checked) else "never")
    if index.fingerprint != fingerprint:
        raise IndexFormatError(f"the index at {path} was replaced since it was pickled: open it again")
    return index
