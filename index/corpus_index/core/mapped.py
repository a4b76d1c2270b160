"""The files of an index, opened: read-only memory maps, which threads and worker processes share in the page cache."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import numpy as np

from corpus_index._kernels.arrays import IndexArrays, NodeArrays, StepArrays, TextArrays
from corpus_index.addresses import check_addresses, check_row_tokens, contradiction
from corpus_index.core.answers import DocumentInfo
from corpus_index.core.checks import check_integer
from corpus_index.core.compact import FoundOrder, FoundTokens, all_ranks, compact_arrays, counted_rows
from corpus_index.errors import CorpusIndexError, IndexFormatError, QueryError
from corpus_index.manifest import BLOCK, DEEPEST, HOT_ARRAYS, as_folder, levels_of
from corpus_index.names import DocumentNames
from corpus_index.store import OpenFiles, check_files, open_files

__all__ = ["BLOCK", "OpenedIndex"]

_ROW_ARRAYS = ("row_offsets", "row_tokens", "row_counts")
_FOUND = ("order", "tokens", *_ROW_ARRAYS)


class OpenedIndex:
    """What an index says of itself, its arrays, and its tokens' ids; `CorpusIndex` asks the questions."""

    def __init__(self, path: str | os.PathLike[str], check: str = "first") -> None:
        self.path = as_folder(path)
        opened = self._open_files(check)
        self._checked = opened.checked
        self._row_tokens_checked = False
        self._manifest = manifest = opened.manifest
        self.num_tokens: int = manifest["num_tokens"]
        self.num_documents: int = manifest["num_documents"]
        self.vocab_size: int = manifest["vocab_size"]
        self.metadata: dict[str, Any] = manifest["metadata"]
        self.end_of_document: int | None = self.metadata.get("end_of_document")
        self.fingerprint: str = manifest["fingerprint"]
        self._arrays = opened.arrays
        self._attachments = opened.attachments
        self._names: DocumentNames | None = None
        self._stamps = opened.stamps
        self._rows: tuple[np.ndarray, ...] | None = None
        self._index: IndexArrays | None = None

    def _open_files(self, check: str) -> OpenFiles:
        """The files: here all of them, opened; of an index that is on its way, those that are asked for."""
        return open_files(self.path, check)

    def prefer_large_pages(self) -> None:
        """Advise the kernel to map the files in pages of 2 MiB: for readers that will ask for all of them.

        Random reads of a large index mostly wait for page tables; matches and targets take 5 to 12 % less time then.
        The pages stay shared in the page cache. Files that lie there already stay as they are, and so does all where
        the system has no such pages (Linux has them on ext4 from 6.16 on, and on xfs), or where the files are larger
        than half of the memory: a page that has to be read again would cost 2 MiB.
        """
        advice = getattr(mmap, "MADV_HUGEPAGE", None)
        if advice is None or 2 * sum(self.size_bytes.values()) > os.sysconf("SC_PHYS_PAGES") * os.sysconf(
            "SC_PAGE_SIZE"
        ):
            return
        for array in self._arrays.values():
            base: Any = array
            while isinstance(base, np.ndarray):
                base = base.base
            if isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap):
                with suppress(OSError):  # a kernel without them
                    base.obj.madvise(advice)

    def close(self) -> None:
        """Let go of the files; the index can't be asked any more."""
        self._arrays = {}
        self._attachments = {}
        self._names = None
        self._index = None
        self._rows = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"CorpusIndex({str(self.path)!r}: {self.num_tokens:,} tokens, "
            f"{self.num_documents:,} documents, vocabulary {self.vocab_size:,})"
        )

    @property
    def layout(self) -> str:
        """What is stored: "full", or "compact", where the text, positions and rows are found from the rest."""
        return str(self._manifest.get("layout", "full"))

    def array(self, name: str) -> np.ndarray:
        """One of the arrays of the format (index/README.md), read-only; for kernels and curious readers.

        Of a compact index, "order" and "tokens" are read like arrays (`FoundArray`), and the rows are counted when they
        are first asked for, and kept in memory.
        """
        if self._arrays and name in _FOUND and self.layout == "compact":
            return self._found(name)
        if name == "row_tokens" and self._arrays and not self._row_tokens_checked:
            check_row_tokens(self.path, self.num_symbols, self._arrays[name])
            self._row_tokens_checked = True
        try:
            return self._arrays[name]
        except KeyError:
            if not self._arrays:
                raise QueryError(f"the index at {self.path} is closed: open it again") from None
            raise QueryError(f"the format has no array {name!r}: see index/README.md") from None

    def _found(self, name: str) -> np.ndarray:
        """What a compact index doesn't store."""
        text: Any = self.kernel_arrays().text
        if name in ("order", "tokens"):
            source = OpenedIndex, self._pickled_path(), name, self.fingerprint
            return (FoundOrder if name == "order" else FoundTokens)(text, source)  # type: ignore[return-value]
        if self._rows is None:
            self._rows = counted_rows(self.array("next_tokens"), self.array("row_bounds"), self.num_symbols)
        return self._rows[_ROW_ARRAYS.index(name)]

    def _pickled_path(self) -> Any:
        """What is pickled as the path of the index."""
        return str(self.path)

    def array_shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shapes and types of the arrays that there are, those that a compact index finds included."""
        shapes = {name: (tuple(array.shape), array.dtype.str) for name, array in self._arrays.items()}
        for name in ("order", "tokens"):
            array = self.array(name)
            shapes[name] = tuple(array.shape), array.dtype.str
        return shapes

    def whole_text(self) -> TextArrays:
        """The text and the order as kernels take them that pass over all of it; of a compact index in memory, O(N)."""
        text = self.kernel_arrays().text
        if isinstance(text, TextArrays):
            return text
        ranks = all_ranks(text)
        order, tokens = np.full(ranks.size, 2**32 - 1, np.uint32), self.array("next_tokens")[ranks]
        order[ranks] = np.arange(ranks.size, dtype=np.uint32)
        for array in (order, tokens):
            array.flags.writeable = False  # as mapped ones: kernels are compiled for one kind
        directory = self.array("doc_directory")
        return TextArrays(order, tokens, self.doc_starts, directory, self.document_shift, self.num_tokens)

    def manifest_field(self, name: str) -> Any:
        """What the manifest says; None where it says nothing."""
        return self._manifest.get(name)

    @property
    def size_bytes(self) -> dict[str, int]:
        """Bytes on disk by file."""
        sizes = {f"{name}.bin": entry["bytes"] for name, entry in self._manifest["arrays"].items()}
        return sizes | {name: entry["bytes"] for name, entry in self._manifest["attachments"].items()}

    @property
    def hot_bytes(self) -> int:
        """Bytes of the files that targets read at every position: what should fit in memory, `manifest.HOT_ARRAYS`."""
        return sum(self.size_bytes.get(f"{name}.bin", 0) for name in HOT_ARRAYS)

    @property
    def num_starts(self) -> int:
        """Documents that hold at least one token."""
        return int(self._manifest["num_starts"])

    @property
    def light(self) -> int:
        """Contexts with more occurrences, and more than one distinct continuation, have a stored row."""
        return int(self._manifest["light"])

    @property
    def deepest(self) -> int:
        """Contexts of more symbols may have no stored row, whatever their occurrences."""
        return int(self._manifest.get("deepest", DEEPEST))

    @property
    def row_shift(self) -> int:
        """Ranks a bucket of `row_directory`, as a power of two."""
        return int(self._manifest["row_shift"])

    @property
    def document_shift(self) -> int:
        """Positions a bucket of `doc_directory`, as a power of two."""
        return int(self._manifest["document_shift"])

    @property
    def num_symbols(self) -> int:
        """V, or the number of distinct tokens where the vocabulary is far larger than the corpus."""
        return int(self._manifest["num_symbols"])

    @property
    def tokens(self) -> np.ndarray:
        """The corpus: shape (N,), uint16 or uint32 ids, read-only.

        A `numpy.memmap` of its file, so that datasets over it can be pickled as a path (an array in memory where the
        vocabulary is far larger than the corpus). Its attribute `stamp` tells that file from a successor's. Of a
        compact index a `FoundTokens`, which is read like an array.
        """
        symbols = self.array("tokens")
        if "alphabet" in self._arrays:
            return self.ids_of(np.asarray(symbols))
        if self.layout == "compact":
            return symbols
        base: Any = symbols
        while isinstance(base, np.ndarray):
            base = base.base
        mapped: Any = base.obj if isinstance(base, memoryview) else base
        tokens: Any = np.ndarray.__new__(np.memmap, symbols.shape, symbols.dtype, mapped)
        tokens._mmap, tokens.offset, tokens.mode = mapped, 0, "r"
        tokens.filename, tokens.stamp = self.path / "tokens.bin", self._stamps["tokens"]
        return tokens

    @property
    def doc_starts(self) -> np.ndarray:
        """Offsets of the documents: shape (D + 1,), int64."""
        return self.array("doc_starts")

    @property
    def attachment_names(self) -> tuple[str, ...]:
        """The extra files that were stored with the index."""
        return tuple(self._manifest["attachments"])

    def attachment(self, name: str) -> bytes:
        """An extra file that was stored with the index, such as its tokenizer.

        Raises
        ------
        IndexFormatError
            If the index has none of that name.
        """
        if not isinstance(name, str) or name not in self._manifest["attachments"]:
            known = ", ".join(self._manifest["attachments"]) or "none"
            raise IndexFormatError(f"{self.path} holds no {name!r}; its attachments: {known}")
        if not self._arrays:
            raise QueryError(f"the index at {self.path} is closed: open it again")
        return bytes(self._attachments[name])

    @property
    def document_names(self) -> DocumentNames | None:
        """Names of all documents, mapped; None in an index that was built without."""
        name = self._manifest.get("document_names")
        if self._names is None and name is not None:
            if not self._arrays:
                raise QueryError(f"the index at {self.path} is closed: open it again")
            names = DocumentNames(self._attachments[name], str(self.path / name))
            if len(names) != self.num_documents:
                raise IndexFormatError(
                    f"{self.path / name} names {len(names):,} documents, the index has {self.num_documents:,}: build "
                    "the index again"
                )
            self._names = names
        return self._names

    def document(self, number: int) -> DocumentInfo:
        """What is known of a document by its number.

        Raises
        ------
        QueryError
            If there is no such document.
        IndexFormatError
            If the file of names is damaged.
        """
        check_integer(number, "document")
        if not 0 <= number < self.num_documents:
            raise QueryError(f"there is no document {number:,}: documents are 0 .. {self.num_documents - 1:,}")
        names = self.document_names
        name, fields = names[number] if names is not None else (None, {})
        begin, end = (int(place) for place in self.doc_starts[number : number + 2])
        return DocumentInfo(number, name, fields, begin, end - begin)

    def check_files(self) -> None:
        """Compare all files with their checksums now.

        Raises
        ------
        IndexFormatError
            At the first that differs.
        """
        check_files(self.path)

    def check_addresses(self) -> None:
        """Check that what the small arrays say of places leads to places that there are; see `addresses`.

        Raises
        ------
        IndexFormatError
        """
        check_addresses(self.path, self._manifest, self._arrays)
        if self.layout == "full":
            check_row_tokens(self.path, self.num_symbols, self._arrays["row_tokens"])

    @property
    def is_checked(self) -> bool:
        """Whether the files were compared with their checksums, now or before."""
        return self._checked != ""

    @contextmanager
    def following_arrays(self) -> Iterator[None]:
        """Work over the whole index: unchecked files are compared now, what can't be followed is one sentence.

        Raises
        ------
        IndexFormatError
        """
        if not self.is_checked:  # all of it will be read: compare it with its checksums after all
            for part in getattr(self, "shards", [self]):
                part.check_files()
        try:
            yield
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            if self.is_checked or isinstance(error, CorpusIndexError):
                raise
            raise contradiction(self.path, f"a count can't be followed ({error})") from error

    def kernel_arrays(self) -> IndexArrays:
        """The arrays as kernels take them."""
        if self._index is None:
            if not self._arrays:
                raise QueryError(f"the index at {self.path} is closed: open it again")
            self._index = self._made_arrays()
        return self._index

    def _made_arrays(self) -> IndexArrays:
        array, manifest = self.array, self._manifest
        if self.layout == "compact":
            return compact_arrays(manifest, array)
        return IndexArrays(
            TextArrays(
                array("order"),
                array("tokens"),
                array("doc_starts"),
                array("doc_directory"),
                manifest["document_shift"],
                self.num_tokens,
            ),
            NodeArrays(array("common"), array("minima"), levels_of(self.num_tokens)),
            StepArrays(array("symbols").reshape(-1), array("near"), array("far"), array("occurrence_directory")),
            manifest["num_starts"],
        )

    def ids_of(self, symbols: np.ndarray) -> np.ndarray:
        """Token ids of symbols."""
        return self._arrays["alphabet"][symbols] if "alphabet" in self._arrays else symbols

    def symbols_of(self, ids: np.ndarray) -> np.ndarray:
        """Symbols of token ids; num_symbols for one that the corpus lacks."""
        if "alphabet" not in self._arrays:
            return ids
        alphabet = self._arrays["alphabet"]
        symbols = np.searchsorted(alphabet, ids)
        known = alphabet[np.minimum(symbols, alphabet.size - 1)] == ids
        return np.where(known, symbols, self.num_symbols)
