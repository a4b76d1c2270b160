"""A shard some documents of which were removed: it answers as if it had been built without them.

Naively: build it again from what is left. Here the files stay, and the ranks of the removed positions are known (see
`masks`). The contexts that are left stand in the same order as before, so ranks, positions and documents are numbered
anew by counting those that are left before them, and every range of ranks becomes the one that an index of what is left
has. A node of the chain that differs from a deeper one in removed occurrences only falls away, as one of which all
occurrences are removed does. So chains, counts and rows are those of the index without the documents, number by number,
and so is whatever is computed of them.

Cost: two binary searches among the removed ranks for each node; of a wide context the removed occurrences are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import duplicates as duplicate_kernels
from corpus_index._kernels.arrays import TextArrays, read_only
from corpus_index.core.answers import DocumentInfo, Match, NextTokens, NextTokensBatch, NodeRows
from corpus_index.core.chains import chains_of
from corpus_index.core.checks import check_integer, check_match_options
from corpus_index.core.duplicates import covered_parts, shared_across_documents, shared_in_text
from corpus_index.core.matching import as_context
from corpus_index.core.scratch import ThreadMemory
from corpus_index.errors import IndexFormatError, QueryError
from corpus_index.index import CorpusIndex
from corpus_index.names import NamedDocument
from corpus_index.shard_manifest import ShardEntry
from corpus_index.sharded.masks import Mask, read_mask
from corpus_index.sharded.places import KeptArray, Places
from corpus_index.sharded.tables import added, counted, ranges

_NARROW = 256  # occurrences; what follows a wider context is taken from its row, less what follows the removed ones
_DOCUMENTS_PER_ENTRY = 4  # of the directory of a text that is put together for a pass over it


def open_shard(folder: Path, entry: ShardEntry, check: str = "first") -> CorpusIndex:
    """A shard of the sharded index in a folder, as its manifest names it.

    Raises
    ------
    FileNotFoundError, IndexFormatError
        As `CorpusIndex.open`; it is another shard; its mask is damaged.
    """
    shard = CorpusIndex(folder / entry.name, check)
    try:
        if shard.fingerprint != entry.fingerprint:
            raise IndexFormatError(f"{folder / entry.name} is not the shard that {folder} names: build the index again")
        if entry.mask is None:
            return shard
        mask = read_mask(folder, entry.mask, shard, check=check != "never")
        return MaskedShard(shard, mask, entry, folder)
    except BaseException:
        shard.close()
        raise


class MaskedShard(CorpusIndex):
    """One shard without its removed documents; ranks, positions and documents are numbered as if they weren't there.

    Parameters
    ----------
    whole : CorpusIndex
        The shard with all its documents; closed with this one.
    mask : Mask, or callable
        What is taken out, or what reads it when it is first asked for.
    entry : ShardEntry
    folder : Path
        Of the sharded index.
    """

    def __init__(self, whole: CorpusIndex, mask: Mask | Callable[[], Mask], entry: ShardEntry, folder: Path) -> None:
        self.whole, self._mask, self._entry, self._folder = whole, mask, entry, folder
        self._removed = self.mask.entry() if entry.mask is None else entry.mask
        self.path, self.vocab_size, self.metadata = whole.path, whole.vocab_size, whole.metadata
        self.end_of_document, self.thread_memory = whole.end_of_document, ThreadMemory()
        self.num_tokens = whole.num_tokens - self._removed.tokens
        self.num_documents = whole.num_documents - self._removed.documents
        said = f"{whole.fingerprint} without {self._removed.sha256}"
        self.fingerprint = hashlib.sha256(said.encode()).hexdigest()
        if (entry.num_tokens, entry.num_documents) != (self.num_tokens, self.num_documents):
            raise IndexFormatError(
                f"{folder} doesn't count what its masks leave of {whole.path}: build the index again"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return open_shard, (self._folder, self._entry, "first" if self.is_checked else "never")

    def __repr__(self) -> str:
        return (
            f"MaskedShard({str(self.path)!r}: {self.num_tokens:,} tokens, {self.num_documents:,} documents; "
            f"{self._removed.documents:,} documents are removed)"
        )

    def close(self) -> None:
        """Let go of the files."""
        self.whole.close()

    def prefer_large_pages(self) -> None:
        """See `CorpusIndex.prefer_large_pages`."""
        self.whole.prefer_large_pages()

    def check_files(self) -> None:
        """Compare all files with their checksums now; see `CorpusIndex.check_files`."""
        self.whole.check_files()
        if self._entry.mask is not None:
            read_mask(self._folder, self._entry.mask, self.whole, check=True)

    def check_addresses(self) -> None:
        """See `CorpusIndex.check_addresses`."""
        self.whole.check_addresses()

    # what it is

    @property
    def _checked(self) -> str:  # type: ignore[override]
        return self.whole._checked

    @property
    def size_bytes(self) -> dict[str, int]:
        """Bytes on disk by file, those of the removed documents included."""
        return self.whole.size_bytes | {"mask.bin": 8 * self._removed.documents + 4 * self._removed.tokens}

    @cached_property
    def mask(self) -> Mask:
        """What is taken out."""
        return self._mask() if callable(self._mask) else self._mask

    @cached_property
    def kept_ranks(self) -> Places:
        """The ranks that are left among those of all documents."""
        return Places(self.mask.ranks)

    @cached_property
    def kept_documents(self) -> Places:
        """The documents that are left."""
        return Places(self.mask.documents)

    @cached_property
    def kept_positions(self) -> Places:
        """The positions that are left."""
        starts = self.whole.doc_starts
        return Places(starts[self.mask.documents], np.diff(starts)[self.mask.documents])

    @cached_property
    def num_starts(self) -> int:
        """Documents that hold at least one token."""
        return int(np.count_nonzero(np.diff(self.doc_starts)))

    @property
    def num_symbols(self) -> int:
        """That of the shard with all its documents."""
        return self.whole.num_symbols

    @property
    def layout(self) -> str:
        """That of the shard with all its documents."""
        return self.whole.layout

    @property
    def light(self) -> int:
        """That of the shard with all its documents."""
        return self.whole.light

    @property
    def deepest(self) -> int:
        """That of the shard with all its documents."""
        return self.whole.deepest

    @property
    def attachment_names(self) -> tuple[str, ...]:
        """The extra files that were stored with it."""
        return self.whole.attachment_names

    def attachment(self, name: str) -> bytes:
        """An extra file that was stored with it."""
        return self.whole.attachment(name)

    @property
    def document_names(self) -> Any:
        """Names of the documents that are left; None where it was built without."""
        names = self.whole.document_names
        return None if names is None else _KeptNames(names, self.kept_documents, self.num_documents)

    def document(self, number: int) -> DocumentInfo:
        """What is known of a document by its number; as `CorpusIndex.document`."""
        check_integer(number, "document")
        if not 0 <= number < self.num_documents:
            raise QueryError(f"there is no document {number:,}: documents are 0 .. {self.num_documents - 1:,}")
        found = self.whole.document(self.among_all_documents(np.array([number]))[0])
        return found._replace(number=number, start=int(self.doc_starts[number]))

    def among_all_documents(self, numbers: np.ndarray) -> list[int]:
        """The numbers that documents have in the shard with all its documents."""
        return list(self.kept_documents.among_all(numbers).tolist())

    def ids_of(self, symbols: np.ndarray) -> np.ndarray:
        """Token ids of symbols."""
        return self.whole.ids_of(symbols)

    def symbols_of(self, ids: np.ndarray) -> np.ndarray:
        """Symbols of token ids; num_symbols for one that the shard with all its documents lacks."""
        return self.whole.symbols_of(ids)

    # arrays

    def array(self, name: str) -> np.ndarray:
        """The arrays that there are of what is left, read by places: tokens, order, next_tokens, common and others."""
        if name == "tokens":
            return self._kept("tokens", self.kept_positions)
        if name == "next_tokens":
            return self._kept("next_tokens", self.kept_ranks)
        if name == "order":
            order: Any = KeptArray(
                self.whole.array("order"), self.kept_ranks, self.num_tokens, self.kept_positions.among_kept, np.int64
            )
            return order
        if name == "doc_starts":
            return self.doc_starts
        if name == "common":
            return self._common
        if name == "endings":
            return self._endings
        if name == "alphabet":
            return self.whole.array(name)
        raise QueryError(f"the array {name!r} isn't there without the removed documents: merge the index")

    def array_shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shapes and types of the arrays that there are."""
        names = "tokens", "next_tokens", "order", "doc_starts", "common", "endings"
        types = {"order": "<i8", "doc_starts": "<i8"}
        sizes = {"doc_starts": self.num_documents + 1, "endings": self.num_starts}
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            name: ((sizes.get(name, self.num_tokens),), types.get(name) or self.whole.array(name).dtype.str)
            for name in names
        }
        known = self.whole.array_shapes()
        return shapes | ({"alphabet": known["alphabet"]} if "alphabet" in known else {})

    def _kept(self, name: str, places: Places) -> Any:
        return KeptArray(self.whole.array(name), places, self.num_tokens)

    @property
    def tokens(self) -> np.ndarray:
        """The text that is left: shape (N,), ids, read by places."""
        tokens: Any = KeptArray(self.whole.tokens, self.kept_positions, self.num_tokens)
        return tokens

    @cached_property
    def doc_starts(self) -> np.ndarray:
        """Offsets of the documents that are left: shape (D + 1,), int64."""
        starts = self.whole.doc_starts
        stays = np.ones(starts.size, np.bool_)
        stays[self.mask.documents] = False
        found: np.ndarray = self.kept_positions.among_kept(starts[stays])
        return found

    @cached_property
    def symbol_counts(self) -> np.ndarray:
        """How often each symbol occurs: shape (num_symbols,), int64."""
        following = np.minimum(self.whole.array("next_tokens")[self.mask.ranks], self.num_symbols - 1)
        counts: np.ndarray = self.whole.symbol_counts - np.bincount(following, minlength=self.num_symbols)
        return counts

    @cached_property
    def _common(self) -> np.ndarray:
        """Symbols shared with the context before, up to 255: the least of those between them. O(N)."""
        ranks = self.kept_ranks.among_all(np.arange(self.num_tokens))
        common = np.asarray(self.whole.array("common"))[: int(ranks[-1]) + 1]
        begins = np.append(0, ranks[:-1] + 1)
        return read_only(np.minimum.reduceat(common, begins))

    @cached_property
    def _endings(self) -> np.ndarray:
        """`token << 32 | rank` of the last position of every document that is left, ascending."""
        endings = self.whole.array("endings")
        ranks = (endings & np.uint64(2**32 - 1)).astype(np.int64)
        kept = ~self._is_removed(ranks)
        found = self.kept_ranks.among_kept(ranks[kept]).astype(np.uint64)
        return np.asarray((endings[kept] >> np.uint64(32) << np.uint64(32)) | found)

    def _is_removed(self, ranks: np.ndarray) -> np.ndarray:
        """Whether each rank of the shard with all its documents is a removed one."""
        removed = self.mask.ranks
        if removed.size == 0:
            return np.zeros(ranks.shape, np.bool_)
        narrow = ranks.astype(removed.dtype)
        places = np.minimum(np.searchsorted(removed, narrow), removed.size - 1)
        return np.asarray(removed[places] == narrow)

    def kernel_arrays(self) -> Any:
        """Not here.

        Raises
        ------
        QueryError
        """
        raise QueryError(f"some documents of {self.path} are removed, so it has no arrays for kernels: merge the index")

    def stretch_ranks(self, begin: int, end: int) -> np.ndarray:
        """The ranks of positions begin .. end − 1, ascending: int64; O(tokens of their documents)."""
        if begin >= end:
            return np.zeros(0, np.int64)
        places = self.kept_positions.among_all(np.arange(begin, end))
        cuts = np.flatnonzero(np.diff(places) != 1) + 1
        firsts, lasts = places[np.append(0, cuts)], places[np.append(cuts, places.size) - 1]
        found = [self.whole.stretch_ranks(a, b + 1) for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True)]
        ranks = found[0] if len(found) == 1 else np.sort(np.concatenate(found))
        return self.kept_ranks.among_kept(ranks)

    def document_ranks(self, documents: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The ranks of all positions of some documents, in the order of the text; as `CorpusIndex.document_ranks`."""
        offsets, ranks = self.whole.document_ranks(self.kept_documents.among_all(np.asarray(documents, np.int64)))
        return offsets, self.kept_ranks.among_kept(ranks)

    # questions

    def _ranks_of(self, ngram: ArrayLike) -> tuple[int, int, np.ndarray]:
        lo, hi, ends = self.whole._ranks_of(ngram)
        first, stop = self.kept_ranks.among_kept(np.array([lo, hi])).tolist()
        return first, stop, self.kept_ranks.among_kept(ends[~self._is_removed(ends)])

    def match_nodes(
        self,
        input_ids: ArrayLike,
        *,
        min_count: int = 1,
        max_order: int | None = None,
        starts_document: bool | ArrayLike = False,
    ) -> tuple[Match, np.ndarray]:
        """As `CorpusIndex.match_nodes`: of contexts that removed documents hold alone, the suffix that is left."""
        match, depths = self.whole.match_nodes(
            input_ids, min_count=min_count, max_order=max_order, starts_document=starts_document
        )
        lo, hi = self.kept_ranks.among_kept(match.lo), self.kept_ranks.among_kept(match.hi)
        match_len = match.match_len.copy()
        few = np.flatnonzero(((hi - lo < min_count) & (depths > 0)).reshape(-1))
        if few.size:
            flat = [np.ascontiguousarray(part.reshape(-1)[few]) for part in (match.lo, match.hi, depths)]
            offsets, a, e, d = chains_of(self.whole, *flat)
            a, e = self.kept_ranks.among_kept(a), self.kept_ranks.among_kept(e)
            enough = np.flatnonzero((e - a >= min_count) | (d == 0))
            best = enough[np.searchsorted(enough, offsets[:-1])]
            lo.reshape(-1)[few], hi.reshape(-1)[few] = a[best], e[best]
            depths, lengths = depths.copy(), d[best].astype(np.int32)
            depths.reshape(-1)[few] = match_len.reshape(-1)[few] = lengths  # a shorter suffix begins inside
        return Match(lo, hi, match_len), depths

    def next_tokens(
        self,
        context: ArrayLike,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool = False,
    ) -> NextTokens:
        """As `CorpusIndex.next_tokens`."""
        ids = as_context(context, self.vocab_size)
        if ids.size:
            found = self.next_tokens_batch(
                ids[None], max_order=max_order, min_count=min_count, starts_document=starts_document
            )
            return found.at(0, ids.size - 1)
        check_match_options(min_count, max_order)
        begins = starts_document and self.num_starts >= min_count and max_order != 0
        hi = np.full((1, 1), self.num_starts if begins else self.num_tokens)
        match = Match(np.zeros((1, 1), np.int64), hi, np.zeros((1, 1), np.int32))
        return self._rows_of(match, np.full((1, 1), int(begins))).at(0, 0)

    def next_tokens_batch(
        self,
        input_ids: ArrayLike,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool | ArrayLike = False,
    ) -> NextTokensBatch:
        """As `CorpusIndex.next_tokens_batch`; all rows are the batch's own."""
        match, depths = self.match_nodes(
            input_ids, min_count=min_count, max_order=max_order, starts_document=starts_document
        )
        return self._rows_of(match, depths)

    def _rows_of(self, match: Match, depths: np.ndarray) -> NextTokensBatch:
        flat = [np.ascontiguousarray(part).reshape(-1) for part in (match.lo, match.hi, depths)]
        return self.rows_of_nodes(*flat).of_batch(match, self.ids_of)

    def rows_of(self, match: Match) -> NextTokensBatch:
        """Not here: a match doesn't tell its depth.

        Raises
        ------
        QueryError
        """
        raise QueryError("without the removed documents a match says not enough: ask next_tokens_batch for the rows")

    def rows_of_nodes(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> NodeRows:
        """The continuation rows of Q nodes; as `CorpusIndex.rows_of_nodes`, but that depths count the start symbol."""
        following, nothing = self.whole.array("next_tokens"), np.zeros(0, np.int64)
        narrow = hi - lo <= _NARROW
        of, ranks = ranges(np.where(narrow, lo, 0), np.where(narrow, hi, 0))
        parts = [counted(of, following[self.kept_ranks.among_all(ranks)].astype(np.int64))]
        wide = np.flatnonzero(~narrow)
        if wide.size:
            a, e, d = self._around(lo[wide], hi[wide], depth[wide].astype(np.int64))
            node, symbols, counts = _flat_rows(self.whole.rows_of_nodes(a, e, d))
            bounds = [np.searchsorted(self.mask.ranks, part.astype(np.uint32)) for part in (a, e)]
            less, gone = ranges(*bounds)
            lost = following[self.mask.ranks[gone]].astype(np.int64)
            node, symbols, counts = added(
                np.concatenate([node, less]),
                np.concatenate([symbols, lost]),
                np.concatenate([counts, np.full(lost.size, -1)]),
            )
            left = counts > 0
            parts.append((wide[node[left]], symbols[left], counts[left]))
        row, symbol, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(row, kind="stable")
        offsets = np.searchsorted(row[order], np.arange(lo.size + 1)).astype(np.int64)
        return NodeRows(
            numbers=np.arange(lo.size),
            offsets=offsets,
            symbols=symbol[order].astype(following.dtype),
            counts=count[order].astype(np.uint32),
            stored_offsets=np.zeros(1, np.int64),
            stored_symbols=nothing.astype(following.dtype),
            stored_counts=nothing.astype(np.uint32),
        )

    def _around(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nodes (lo, hi, depth) of the shard with all its documents that hold nodes of what is left."""
        offsets, a, e, d = self._chains_around(lo, hi, depth)
        return a[offsets[:-1]], e[offsets[:-1]], d[offsets[:-1]]

    def _chains_around(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, ...]:
        """Offsets, and the chains of nodes that hold nodes of what is left, in the shard with all its documents."""
        first, last = self.kept_ranks.among_all(lo), self.kept_ranks.among_all(hi - 1)
        # ranks that share one symbol more, as it were: the next node is the one of the depth, unless it is just these
        offsets, a, e, d = chains_of(self.whole, first, last + 1, (depth + 1).astype(np.int32))
        sizes = np.diff(offsets)
        root = depth == 0
        after = offsets[:-1] + 1
        found = ~root & (d[np.minimum(after, d.size - 1)] == depth)
        a, e, d = a.copy(), e.copy(), d.copy()
        d[offsets[:-1]] = depth
        drop = found | (root & (sizes > 1))
        stays = np.ones(d.size, np.bool_)
        stays[offsets[:-1][drop]] = False
        ends = np.append(0, np.cumsum(sizes - drop)).astype(np.int64)
        return ends, a[stays], e[stays], d[stays]


@chains_of.register
def _(shard: MaskedShard, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, ...]:
    """The nodes of all chains: those in which some occurrence is left that the next deeper one lacks."""
    offsets, a, e, d = shard._chains_around(lo, hi, depth.astype(np.int64))
    a, e = shard.kept_ranks.among_kept(a), shard.kept_ranks.among_kept(e)
    width = e - a
    deepest, root = np.zeros(d.size, np.bool_), np.zeros(d.size, np.bool_)
    deepest[offsets[:-1]] = True
    root[offsets[1:] - 1] = True
    stays = root | deepest | (width > np.append(0, width[:-1]))
    ends = np.append(0, np.cumsum(stays))[offsets].astype(np.int64)
    return ends, a[stays], e[stays], d[stays]


@shared_across_documents.register
def _(shard: MaskedShard) -> tuple[np.ndarray, np.ndarray]:
    """Those of what is left; O(N) time, 8 bytes a token of memory more."""
    return shared_in_text(_text_of(shard), shard.array("common"), duplicate_kernels.Ends.empty(0))


@covered_parts.register
def _(shard: MaskedShard) -> tuple[np.ndarray, np.ndarray]:
    """Those of what is left: ends of documents stand between ranks as they did, less what is removed between them."""
    whole = shard.whole
    endings = whole.array("endings")
    ends = duplicate_kernels.Ends.empty(endings.size)
    duplicate_kernels.insert_ends(whole.kernel_arrays()._replace(text=whole.whole_text()), endings, ends)
    # all ranks and ends in one order; what each shares with the one before
    size, number = whole.num_tokens, ends.ranks.size
    places = ends.ranks + np.arange(number)
    is_end = np.zeros(size + number, np.bool_)
    is_end[places] = True
    shares = np.empty(size + number, np.int64)
    shares[~is_end] = whole.array("common")
    shares[places] = ends.before
    last = np.append(ends.ranks[1:] != ends.ranks[:-1], True) if number else np.zeros(0, np.bool_)
    last &= ends.ranks < size
    shares[places[last] + 1] = ends.after[last]
    stays = np.ones(size + number, np.bool_)
    stays[np.flatnonzero(~is_end)[shard.mask.ranks]] = False
    stays[places[np.isin(ends.documents, shard.mask.documents)]] = False
    kept = np.flatnonzero(stays)
    shares = np.minimum.reduceat(shares[: kept[-1] + 1], np.append(0, kept[:-1] + 1))
    of_end = is_end[kept]
    common = read_only(shares[~of_end].astype(np.uint8))
    at = np.flatnonzero(of_end)
    documents = ends.documents[np.isin(places, kept)]
    left = duplicate_kernels.Ends(
        ranks=at - np.arange(at.size),
        documents=shard.kept_documents.among_kept(documents),
        before=shares[at],
        after=np.append(shares, 0)[at + 1],
        shared=np.zeros(at.size, np.int64),
    )
    shared, _ = shared_in_text(_text_of(shard), common, left)
    at_end = np.zeros(shard.num_documents, np.int64)
    at_end[left.documents] = np.minimum(left.shared, np.diff(shard.doc_starts)[left.documents])
    return shared, at_end


def _text_of(shard: MaskedShard) -> TextArrays:
    """The text that is left as kernels take it, put together in memory."""
    starts = shard.doc_starts
    shift = max(0, int(np.log2(max(1, _DOCUMENTS_PER_ENTRY * shard.num_tokens // max(1, shard.num_documents)))))
    places = np.arange((shard.num_tokens >> shift) + 1) << shift
    directory = np.maximum(np.searchsorted(starts[:-1], places, side="right") - 1, 0).astype(np.uint32)
    order, tokens = (np.asarray(shard.array(name)) for name in ("order", "tokens"))
    return TextArrays(
        read_only(order.astype(np.uint32)),
        read_only(tokens),
        read_only(starts),
        read_only(directory),
        shift,
        shard.num_tokens,
    )


class _KeptNames:
    """Names of the documents that are left, by number."""

    def __init__(self, names: Any, documents: Places, size: int) -> None:
        self._names, self._documents, self._size = names, documents, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: int) -> NamedDocument:
        name: NamedDocument = self._names[int(self._documents.among_all(np.array(number)))]
        return name

    def __iter__(self) -> Iterator[NamedDocument]:
        return (self[number] for number in range(self._size))


def _flat_rows(made: NodeRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(node, symbol, count) of all rows."""
    stored = made.stored_offsets.size - 1
    heavy = made.numbers < stored
    at = np.where(heavy, made.numbers, made.numbers - stored)
    begin, end = np.zeros(at.size, np.int64), np.zeros(at.size, np.int64)
    begin[heavy], end[heavy] = made.stored_offsets[at[heavy]], made.stored_offsets[at[heavy] + 1]
    begin[~heavy], end[~heavy] = made.offsets[at[~heavy]], made.offsets[at[~heavy] + 1]
    of, places = ranges(begin, end)
    from_stored = heavy[of]
    symbols, counts = np.empty(of.size, np.int64), np.empty(of.size, np.int64)
    symbols[from_stored], counts[from_stored] = (
        part[places[from_stored]] for part in (made.stored_symbols, made.stored_counts)
    )
    symbols[~from_stored], counts[~from_stored] = (part[places[~from_stored]] for part in (made.symbols, made.counts))
    return of, symbols, counts
