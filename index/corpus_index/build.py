"""From tokens to an index on disk: sort all contexts, derive the companions, write.

Naively: `order = sorted(range(N), key=lambda p: context(p)[::-1])`, and everything else follows from it. Here the
corpus is written backwards with a start symbol behind each document and its suffixes are sorted (a large corpus by
`lms_sort`, in threads up to the last two scans; a small one by `suffix_sort`, one thread, O(N)); the companions are
filled by threads that share the ranks, O(N) each; files are written and hashed in the background. Peak memory is about
19 bytes a token with 16-bit tokens, the caller's array included.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from corpus_index._kernels import companions, lms_sort, rows, suffix_sort
from corpus_index._kernels.arrays import read_only
from corpus_index._kernels.jit import compile_beside
from corpus_index.core.mapped import BLOCK
from corpus_index.corpus import MAX_TOKENS, Corpus, check_corpus, check_integer
from corpus_index.errors import CorpusError
from corpus_index.index import CorpusIndex
from corpus_index.layouts import check_layout, write_layout
from corpus_index.manifest import as_folder
from corpus_index.memory import build_bytes, check_memory, free_memory_bytes
from corpus_index.names import NAMES_FILE, DocumentNames, names_between, pack_names
from corpus_index.occurrences import occurrence_lists
from corpus_index.sharded.shard_writer import cut_documents, event, shard_writer
from corpus_index.sharded.sharded_index import open_index
from corpus_index.store import DEEPEST, IndexWriter, check_target, index_writer, scratch_beside

Progress = Callable[[str, float], None]

_AHEAD = 32
_LIGHT = 128  # ranks; wider nodes have their row stored, if the rows are small enough together
_ROW_BYTES_PER_TOKEN = 1.5
_LEAST_DEEPEST = 16  # before rows of shorter contexts are given up, wider ones count as light
_SLICE = 1 << 15  # ranks that are worth a thread
_LARGE = 1 << 20  # symbols of text that are worth the kernels of `lms_sort`
_DENSE = 0.125  # of the text's length: with more symbols than that, a count of each in each thread takes much memory


def build_index(
    tokens: np.ndarray,
    path: str | os.PathLike[str],
    *,
    doc_starts: np.ndarray | None = None,
    vocab_size: int | None = None,
    end_of_document: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    attachments: Mapping[str, bytes] | None = None,
    document_names: Sequence[str] | bytes | mmap.mmap | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool | Progress = False,
    shard_tokens: int | None = None,
    layout: str = "full",
    memory: int | None = None,
) -> CorpusIndex:
    """Index a corpus and write the index to a folder.

    Parameters
    ----------
    tokens : ndarray of shape (N,), any integer type
        Token ids in 0 .. V − 1, documents one after the other; an array or a memory map. N ≥ 1, and at most 2^32 − 2
        for each shard.
    path : path
        The folder to make. It appears, whole, at the end; a build that fails or is killed leaves no folder there.
    doc_starts : ndarray of shape (D + 1,), optional
        Offsets of the documents: 0, …, N; empty documents allowed. Left out: a document ends after every
        end-of-document token, or the corpus is one document.
    vocab_size : int, optional
        V, up to 2^31; default: the largest id plus one.
    end_of_document : int, optional
        A token that ends documents; a context starts anew after it. Also read from metadata["end_of_document"].
    metadata : mapping, optional
        Kept with the index as JSON.
    attachments : mapping of file name to bytes, optional
        Extra files kept in the folder, such as the tokenizer.
    document_names : sequence of D str, or the content of a file of names, optional
        What the documents are called; see `corpus_index.names`.
    overwrite : bool
        Replace an index that stands at path (after the new one is whole).
    workers : int, optional
        Threads; default: the processors that this process may use. The result doesn't depend on it.
    progress : bool or callable
        True: a line on stderr. A callable gets (stage, share done).
    shard_tokens : int, optional
        Cut a larger corpus at document boundaries into shards of at most that many tokens (a longer document is a
        shard of its own), which are built one after the other; see `corpus_index.sharded`. Default: one index.
    layout : {"full", "compact"}
        What is stored: "compact" takes about 4 bytes a token, and longer to ask; see `convert_index`. The full one
        is written first, beside it.
    memory : int, optional
        Bytes that the build may take, where that is more than what the machine has available (which is the default);
        limits of control groups and of the process hold all the same.

    Returns
    -------
    CorpusIndex
        The new index, opened; a `ShardedIndex` where it was cut.

    Raises
    ------
    CorpusError
        If the corpus is empty, or a token id or document start is out of range.
    InsufficientMemoryError
        If the build, or that of the largest shard, needs more memory than there is; at once, before anything is sorted.
    IndexExistsError, IndexWriteError
        If the folder can't be written.

    Notes
    -----
    O(N) time. About 19 N bytes of memory at the peak, or 19 times shard_tokens, and 11 to 13 N bytes on disk with
    16-bit tokens.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> folder = tempfile.mkdtemp()
    >>> with build_index(np.array([1, 2, 1, 2, 3]), folder + "/index") as index:
    ...     index.count([1, 2])
    2
    """
    path = as_folder(path, "a new index")  # absolute: the working folder itself may be replaced
    check_options(attachments=attachments, metadata=metadata, overwrite=overwrite, progress=progress)
    check_integer(end_of_document, "end_of_document", none=True)
    metadata = dict(metadata or {})
    if end_of_document is None:
        end_of_document = metadata.get("end_of_document")
    elif metadata.setdefault("end_of_document", end_of_document) != end_of_document:
        raise CorpusError(
            f"end_of_document is {end_of_document} but the metadata says {metadata['end_of_document']}: give one"
        )
    check_layout(layout)
    check_target(path, overwrite=overwrite)
    for name, value in (("shard_tokens", shard_tokens), ("workers", workers), ("memory", memory)):
        check_integer(value, name, none=True)
    if shard_tokens is not None and not 1 <= shard_tokens <= MAX_TOKENS:
        raise CorpusError(f"shard_tokens {shard_tokens} must be in 1 .. {MAX_TOKENS:,}")
    most = MAX_TOKENS if shard_tokens is None else None
    corpus = check_corpus(tokens, doc_starts, vocab_size, end_of_document, most=most)
    names = packed_names(document_names, corpus.doc_starts.size - 1)
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise CorpusError(f"workers {workers} must be at least 1")
    check_build_memory(corpus, shard_tokens, workers=workers, memory=memory)
    compile_ahead(corpus.vocab_size, large=corpus.tokens.size > _LARGE)
    report = _stderr_progress if progress is True else progress or (lambda stage, share: None)
    if shard_tokens is not None and corpus.tokens.size > shard_tokens:
        kept: dict[str, Any] = {
            "metadata": metadata,
            "attachments": attachments,
            "workers": workers,
            "layout": layout,
            "memory": memory,
        }
        _build_shards(corpus, path, shard_tokens, names, kept, report, overwrite=overwrite)
        return open_index(path)
    if layout != "full":
        with scratch_beside(path) as scratch:
            options: dict[str, Any] = {"metadata": metadata, "attachments": attachments, "document_names": names}
            options |= {"doc_starts": corpus.doc_starts, "vocab_size": corpus.vocab_size, "workers": workers}
            options["memory"] = memory
            with build_index(corpus.tokens, scratch / "full", progress=progress, **options) as full:
                write_layout(full, path, layout, overwrite=overwrite, workers=workers)
        return CorpusIndex.open(path)
    with index_writer(path, overwrite=overwrite) as writer, ThreadPoolExecutor(workers) as pool:
        if names is not None:
            writer.attach(NAMES_FILE, names)
        for name, content in (attachments or {}).items():
            writer.attach(name, content)
        fields = _Build(corpus, writer, pool, workers, report).run()
        report("write", 0.0)
        named = {} if names is None else {"document_names": NAMES_FILE}
        writer.finish(fields | {"metadata": metadata} | named)
        report("write", 1.0)
    return CorpusIndex.open(path)


def check_options(
    *,
    attachments: object = None,
    metadata: object = None,
    overwrite: object = False,
    progress: object = None,
) -> None:
    """Refuse options of another type.

    Raises
    ------
    CorpusError
    """
    for name, value in (("attachments", attachments), ("metadata", metadata)):
        if not isinstance(value, (Mapping, type(None))):
            raise CorpusError(f"{name} is {value!r}: give a mapping")
    if isinstance(metadata, Mapping):
        try:
            json.dumps(dict(metadata), sort_keys=True)
        except (TypeError, ValueError, RecursionError) as error:
            raise CorpusError(f"the metadata isn't what JSON can hold: {error}") from error
    for name, content in attachments.items() if isinstance(attachments, Mapping) else ():
        if not isinstance(name, str) or not isinstance(content, (bytes, bytearray, memoryview, mmap.mmap)):
            raise CorpusError(f"attachments has {name!r}: {content!r}: give a mapping of file names to bytes")
    if not isinstance(overwrite, (bool, np.bool_)):
        raise CorpusError(f"overwrite {overwrite!r} must be True or False")
    if not (progress is None or isinstance(progress, (bool, np.bool_)) or callable(progress)):
        raise CorpusError(f"progress {progress!r} must be True, False, or a function of a stage and a share")


def _build_shards(
    corpus: Corpus,
    path: Path,
    shard_tokens: int,
    names: bytes | mmap.mmap | None,
    kept: dict[str, Any],
    report: Progress,
    *,
    overwrite: bool,
) -> None:
    """Cut a corpus and build its shards, one at a time."""
    parts = cut_documents(corpus.doc_starts, shard_tokens)
    with shard_writer(path, overwrite=overwrite) as writer:
        for number, (first, end) in enumerate(parts, 1):
            writer.add(
                partial(
                    build_part,
                    corpus,
                    first,
                    end,
                    names=names,
                    progress=lambda stage, share, n=number: report(f"{stage} ({n} of {len(parts)})", share),
                    **kept,
                )
            )
        facts = {"documents": corpus.doc_starts.size - 1, "tokens": corpus.tokens.size, "shards": len(parts)}
        writer.finish(corpus.vocab_size, kept["metadata"], [event("build", **facts)])


def build_part(
    corpus: Corpus, first: int, end: int, path: Path, *, names: bytes | mmap.mmap | None = None, **options: Any
) -> CorpusIndex:
    """`build_index` of the documents first … end − 1 of a corpus."""
    starts = corpus.doc_starts[first : end + 1]
    return build_index(
        corpus.tokens[int(starts[0]) : int(starts[-1])],
        path,
        doc_starts=starts - starts[0],
        vocab_size=corpus.vocab_size,
        end_of_document=corpus.end_of_document,
        document_names=None if names is None else names_between(DocumentNames(names), first, end),
        **options,
    )


def check_build_memory(corpus: Corpus, shard_tokens: int | None, *, workers: int, memory: int | None) -> None:
    """Refuse a build, in shards or not, whose largest shard needs more memory than there is.

    Raises
    ------
    InsufficientMemoryError
        With the way out: shards of how many tokens would do.
    """
    starts = corpus.doc_starts
    cuts = np.array(cut_documents(starts, min(shard_tokens or MAX_TOKENS, MAX_TOKENS)))
    sizes, documents = np.diff(starts[cuts], axis=1)[:, 0], np.diff(cuts, axis=1)[:, 0]
    parts = zip(sizes.tolist(), documents.tolist(), strict=True)
    needed = [build_bytes(tokens, count, corpus.vocab_size, workers) for tokens, count in parts]
    worst = int(np.argmax(needed))
    num_tokens = int(sizes[worst])
    there = free_memory_bytes() if memory is None else memory
    fitting = max(1, int(0.9 * num_tokens * min(1.0, there / needed[worst])))
    if documents[worst] == 1 and num_tokens > fitting:
        way_out = "a document can't be cut: give it in pieces, as documents of their own"
    else:
        way_out = f"build in shards (shard_tokens={fitting} would do)"
    what = "the build" if len(needed) == 1 else f"the build of the largest of {len(needed):,} shards,"
    check_memory(
        needed[worst],
        f"{what} of {num_tokens:,} tokens",
        f"{way_out}, or give `memory` if there is more",
        memory,
    )


def packed_names(names: Sequence[str] | bytes | mmap.mmap | None, num_documents: int) -> bytes | mmap.mmap | None:
    """The content of the file of names, of as many as there are documents."""
    if names is None:
        return None
    if not isinstance(names, (bytes, mmap.mmap)) and (not isinstance(names, Iterable) or isinstance(names, str)):
        raise CorpusError(f"document_names is {names!r}: give a list of names")
    packed = names if isinstance(names, (bytes, mmap.mmap)) else pack_names(names)
    count = len(DocumentNames(packed))
    if count != num_documents:
        raise CorpusError(f"there are {count:,} names and {num_documents:,} documents: give each document a name")
    return packed


def compile_ahead(vocab_size: int, *, large: bool = False) -> None:
    """Let other processes compile what a build will need, unless it is compiled: for who still has tokens to make.

    Parameters
    ----------
    vocab_size : int
        V; kernels differ from 65,536 on.
    large : bool
        What only large corpora need.
    """
    wide = _smallest_type(vocab_size + 1) is np.uint32
    if large:
        several = [lms_sort.sort_groups, lms_sort.count_lms, lms_sort.list_lms, lms_sort.name_lms_groups]
        several += [lms_sort.keep_tied, lms_sort.close_gaps, lms_sort.place_tied, lms_sort.spread_buckets]
        compile_beside("large", several, wide=wide)
    sort, fill = suffix_sort, companions
    sorting = [sort.induce_s, sort.induce_l, sort.name_lms, sort.place_lms, sort.lms_from_reduced, sort.spread_lms]
    sorting += [sort.count_symbols, fill.fill_backwards, sort.gather_names, sort.collect_lms]
    rest = [rows.fill_heavy_rows, fill.fill_ranked, fill.fill_shared_lengths, fill.fill_neighbours]
    rest += [fill.fill_occurrences, rows.gather_rows, fill.block_minima, fill.count_continuations]
    rest += [fill.finish_directory, fill.add_spill, fill.fill_text_directory, fill.fill_document_directory]
    compile_beside("build", rest, sorting, wide=wide)


def _stderr_progress(stage: str, share: float) -> None:
    sys.stderr.write(f"\rindex: {stage:<12} {share:4.0%}" + ("\n" if stage == "write" and share >= 1 else ""))
    sys.stderr.flush()


class _Build:
    """The stages of one build; each frees what the next doesn't need."""

    def __init__(
        self, corpus: Corpus, writer: IndexWriter, pool: ThreadPoolExecutor, workers: int, report: Progress
    ) -> None:
        self.corpus = corpus
        self.writer = writer
        self.pool = pool
        self.workers = workers
        self.report = report
        self.starts = corpus.filled_starts
        self.num_tokens = corpus.tokens.size
        self.num_starts = self.starts.size - 1

    def run(self) -> dict[str, Any]:
        """Do all; returns the fields of the manifest."""
        self.add_tokens()
        self.add_documents()
        suffixes = self.sort()
        next_tokens, last, deep = self.fill_ranked(suffixes)
        self.add_rows(next_tokens, deep)
        del deep
        self.add_occurrences(next_tokens, last)
        corpus = self.corpus
        return {
            "num_tokens": self.num_tokens,
            "num_documents": corpus.doc_starts.size - 1,
            "num_starts": self.num_starts,
            "vocab_size": corpus.vocab_size,
            "num_symbols": self.num_symbols,
            "document_shift": self.document_shift,
            "row_shift": self.row_shift,
            "light": self.light,
            **({} if self.deepest == DEEPEST else {"deepest": self.deepest}),
        }

    def slices(self, count: int) -> list[tuple[int, int]]:
        """Cut range(count) into one part a worker (fewer when they would be small)."""
        parts = max(1, min(self.workers, count // _SLICE))
        return list(pairwise(count * k // parts for k in range(parts + 1)))

    def each(self, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Call function on every tuple of arguments, in threads where that pays."""
        if len(arguments) == 1:
            return [function(*arguments[0])]
        return [future.result() for future in [self.pool.submit(function, *given) for given in arguments]]

    def add_tokens(self) -> None:
        """Symbols: the ids themselves, or, where the vocabulary is far larger than the corpus, their ranks in it."""
        tokens, vocab_size = self.corpus.tokens, self.corpus.vocab_size
        if vocab_size > 65_536 + 2 * self.num_tokens:
            alphabet = np.unique(tokens).astype(np.uint32)
            self.num_symbols = alphabet.size
            self.writer.add("alphabet", alphabet)
            self.symbols_text = np.searchsorted(alphabet, tokens).astype(_smallest_type(alphabet.size))
        else:
            self.num_symbols = vocab_size
            self.symbols_text = np.asarray(tokens).astype(_smallest_type(vocab_size), copy=False)
        self.writer.add("tokens", self.symbols_text)

    def add_documents(self) -> None:
        """doc_starts and their directory."""
        doc_starts = self.corpus.doc_starts
        self.writer.add("doc_starts", doc_starts)
        self.document_shift = _shift(self.num_tokens, doc_starts.size)
        directory = np.zeros((self.num_tokens >> self.document_shift) + 1, np.uint32)
        companions.fill_document_directory(doc_starts, directory, self.document_shift)
        self.writer.add("doc_directory", directory)

    def sort(self) -> np.ndarray:
        """The sorted suffixes of the backwards text; keeps the text."""
        self.report("sort", 0.0)
        length = self.num_tokens + self.num_starts
        self.text = np.empty(length, _smallest_type(self.num_symbols + 1))
        cuts = np.searchsorted(self.starts, [lo for lo, _ in self.slices(self.num_tokens)] + [self.num_tokens])
        self.each(
            companions.fill_backwards,
            [(self.symbols_text, self.starts, self.text, lo, hi) for lo, hi in pairwise(cuts.tolist())],
        )
        suffixes = np.empty(length, np.int32 if length < 2**31 else np.int64)
        symbols = self.num_symbols + 1
        report = partial(self.report, "sort")
        if length > _LARGE and symbols <= _DENSE * length:
            lms_sort.sort_large(self.text, suffixes, symbols, self.slices(length), self.each, report)
        else:  # fewer kernels to compile
            suffix_sort.sort_suffixes(self.text, suffixes, symbols, report)
        return suffixes

    def fill_ranked(self, suffixes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """order, next_tokens and common; returns next_tokens, the last ranks of documents, and the shared lengths."""
        length, parts = suffixes.size, self.slices(suffixes.size)
        self.report("neighbours", 0.0)
        common, next_tokens = np.empty(length, np.uint8), np.empty(length, self.symbols_text.dtype)
        predecessor = np.zeros(length, suffixes.dtype)  # of pages that are made when written
        self.each(
            companions.fill_neighbours,
            [(self.text, suffixes, common, next_tokens, predecessor, lo, hi, _AHEAD) for lo, hi in parts],
        )
        self.report("neighbours", 0.4)
        self.each(companions.fill_shared_lengths, [(self.text, predecessor, lo, hi, _AHEAD) for lo, hi in parts])
        del self.text
        self.report("neighbours", 0.6)
        shift = _shift(length, self.num_starts)
        directory = np.zeros((length >> shift) + 1, np.uint32)
        companions.fill_text_directory(self.starts, directory, shift)
        ends = np.arange(-1, self.num_starts, dtype=suffixes.dtype)
        ends[1:] += (self.num_tokens - self.starts[-2::-1]).astype(ends.dtype)
        deep = np.empty(length, np.uint16)
        lasts = [np.empty(min(self.num_starts, hi - lo), np.int64) for lo, hi in parts]
        filled = self.each(
            companions.fill_ranked,
            [
                (
                    *(suffixes, predecessor, ends, directory, shift),
                    *(next_tokens, common, deep, last, lo, hi, _AHEAD),
                )
                for (lo, hi), last in zip(parts, lasts, strict=True)
            ],
        )
        del predecessor
        self.report("neighbours", 0.9)
        place, carry, last_ranks = 0, 2**62, []
        for (lo, _), (kept, ends, rest), last in zip(parts, filled, lasts, strict=True):
            for array in (suffixes, next_tokens, common, deep):
                if place < lo:
                    array[place : place + kept] = array[lo : lo + kept]
            if kept:
                common[place] = min(int(common[place]), carry)
                deep[place] = min(int(deep[place]), carry)
                carry = 2**62
            last_ranks.append(last[:ends] + place)
            place += kept
            carry = min(carry, rest)
        n = self.num_tokens
        order = suffixes[:n]
        self.writer.add("order", order.view(np.uint32) if order.dtype == np.int32 else order.astype(np.uint32))
        self.writer.add("next_tokens", next_tokens[:n])
        common = common[:n]
        self.writer.add("common", common)
        minima: list[np.ndarray] = []
        level = common
        while not minima or level.size > BLOCK:
            smaller = np.empty(-(-level.size // BLOCK), np.uint8)
            companions.block_minima(read_only(level), smaller, BLOCK)
            minima.append(smaller)
            level = smaller
        self.writer.add("minima", np.concatenate(minima))
        return next_tokens[:n], np.concatenate(last_ranks), deep[:n]

    def add_occurrences(self, next_tokens: np.ndarray, last: np.ndarray) -> None:
        """Where each token stands among the continuations, for the backward step; the ends of documents apart."""
        self.report("occurrences", 0.0)
        made = occurrence_lists(
            next_tokens, last, self.num_symbols, self.num_starts, self.slices(self.num_tokens), self.each
        )
        for name, array in made.items():
            self.writer.add(name, array)
        self.report("occurrences", 1.0)

    def add_rows(self, next_tokens: np.ndarray, deep: np.ndarray) -> None:
        """The continuation rows of heavy nodes, as many as a byte a token holds."""
        self.report("rows", 0.0)
        n = self.num_tokens
        cuts = [0]
        for lo, _ in self.slices(n)[1:]:  # cut only where no node but the root is cut
            border = lo + int(np.argmax(deep[lo:] == 0))
            if deep[border] == 0 and border > cuts[-1]:
                cuts.append(border)
        made = self.each(
            rows.heavy_rows,
            [(next_tokens, deep, self.num_symbols, _LIGHT, lo, hi, len(cuts) == 1) for lo, hi in pairwise([*cuts, n])],
        )
        if len(cuts) > 1:
            made.append(_root_row(next_tokens, self.num_symbols))
        bounds = np.concatenate([part[0] for part in made])
        sizes = np.concatenate([np.diff(part[1]) for part in made])
        token_ids = np.concatenate([part[2] for part in made])
        counts = np.concatenate([part[3] for part in made])
        del made
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        outer = np.maximum(deep[bounds[:, 0]], np.append(deep, 0)[bounds[:, 1]]).astype(np.int64)
        sizes_bytes = 12 + sizes * (token_ids.itemsize + 4)
        self.light, self.deepest = _affordable(
            bounds[:, 1] - bounds[:, 0], outer + 1, sizes_bytes, _ROW_BYTES_PER_TOKEN * n
        )
        chosen = np.flatnonzero((bounds[:, 1] - bounds[:, 0] > self.light) & (outer < self.deepest))
        chosen = chosen[np.lexsort((bounds[chosen, 1], bounds[chosen, 0]))]
        total = int(sizes[chosen].sum())
        out_offsets = np.zeros(chosen.size + 1, np.int64)
        out_tokens, out_counts = np.empty(total, token_ids.dtype), np.empty(total, np.uint32)
        rows.gather_rows(chosen, offsets, token_ids, counts, out_offsets, out_tokens, out_counts)
        self.row_shift = _shift(n, chosen.size)
        firsts = np.arange((n >> self.row_shift) + 2, dtype=np.int64) << self.row_shift
        directory = np.searchsorted(bounds[chosen, 0], firsts).astype(np.uint32)
        self.writer.add("row_bounds", bounds[chosen].astype(np.uint32))
        self.writer.add("row_directory", directory)
        self.writer.add("row_offsets", out_offsets)
        self.writer.add("row_tokens", out_tokens)
        self.writer.add("row_counts", out_counts)


def _affordable(widths: np.ndarray, orders: np.ndarray, sizes: np.ndarray, budget: float) -> tuple[int, int]:
    """(light, deepest): rows wider than light, of contexts whose least order is at most deepest, are within the budget.

    A long run of one token has a row for each of its lengths. These go first, longest context first: to raise
    `light` for them would slow down all contexts.
    """
    light = _LIGHT
    while True:
        kept = widths > light
        by_order = np.bincount(np.minimum(orders[kept], DEEPEST), sizes[kept], DEEPEST + 1)
        fits = np.cumsum(by_order) <= budget
        if fits.all():
            return light, DEEPEST
        if fits[_LEAST_DEEPEST]:
            return light, int(np.argmin(fits)) - 1
        light *= 2


def _root_row(next_tokens: np.ndarray, num_symbols: int) -> tuple[np.ndarray, ...]:
    """The unigrams as a heavy row, in the form that `heavy_rows` returns (nothing if there is one token only)."""
    counts = np.zeros(num_symbols, np.int64)
    suffix_sort.count_symbols(next_tokens, counts)  # np.bincount would copy all ranks as int64
    ids = np.flatnonzero(counts)
    if ids.size < 2:
        ids = ids[:0]
    bounds = np.array([[0, next_tokens.size]][: min(1, ids.size)], np.int64).reshape(-1, 2)
    offsets = np.array([0, ids.size][: 1 + bounds.shape[0]], np.int64)
    return bounds, offsets, ids.astype(next_tokens.dtype), counts[ids].astype(np.uint32)


def _smallest_type(num_values: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if num_values <= 2**16 else np.uint32


def _shift(length: int, entries: int) -> int:
    """The shift that cuts range(length) into about two blocks an entry."""
    return max(0, int(np.log2(max(1.0, length / (2 * max(1, entries))))))
