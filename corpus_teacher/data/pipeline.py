"""Documents → tokens on disk: parallel, in order, and never the whole text in memory.

The naive definition: concatenate `tokenizer.encode(document) + [end_of_document]` over all documents, and
remember where each begins. Here batches of about a megabyte go through a bounded queue to threads (the
tokenizer library works outside of the GIL), and come back in order, so the outcome doesn't depend on the
number of workers. Tokens are appended to a file, which is then mapped: memory holds a few batches, whatever
the size of the corpus.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from corpus_index.files import whole_file
from corpus_index.names import NamesWriter

from corpus_teacher.data.documents import Document, Progress, ReadLog, silent
from corpus_teacher.data.parts import Part, sound_parts
from corpus_teacher.data.tokenizers import TokenIds, Tokenizer
from corpus_teacher.errors import CorpusError, OutputError
from corpus_teacher.provenance import available_cores

BATCH_CHARS = 1 << 20
"""Characters that one task of a worker holds, about."""

_DOCUMENT_CHARS = 64  # that a document counts for besides its text: a million empty ones take memory too


_T = TypeVar("_T")


@dataclass(frozen=True)
class TokenFile:
    """A tokenised corpus.

    Parameters
    ----------
    tokens : ndarray of shape (N,), uint16 or uint32
        A read-only memory map.
    doc_starts : ndarray of shape (D + 1,), int64
        Where each document begins; the last entry is N.
    num_bytes : int
        UTF-8 bytes of the text, 0 where only tokens were given.
    path : Path, optional
        The file behind the map; None for one that goes away with the map.
    names : bytes or mmap, optional
        What the documents are called, as `corpus_index.names` packs it.
    """

    tokens: npt.NDArray[Any]
    doc_starts: npt.NDArray[np.int64]
    num_bytes: int = 0
    path: Path | None = None
    names: bytes | mmap.mmap | None = None

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.doc_starts) - 1


class TokenWriter:
    """Appends tokens and document ends to a file; `finish` maps it.

    Parameters
    ----------
    dtype : dtype
        uint16 or uint32.
    path : Path, optional
        The file to write, which is whole or not there. None: a nameless file in `folder`, which no exit whatsoever
        can leave behind.
    folder : Path, optional
        Where the nameless file lives; the system's place for temporary files by default.

    Raises
    ------
    OutputError
        From the constructor, `append` and `finish`: no permission, no space.
    """

    def __init__(self, dtype: npt.DTypeLike, path: Path | None = None, *, folder: Path | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.path = path
        self._place = path if path is not None else (folder or Path(tempfile.gettempdir()))
        self._starts: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
        self.num_tokens = 0
        self.num_documents = 0
        self._stack = contextlib.ExitStack()
        try:
            self._file: IO[bytes] = self._stack.enter_context(
                whole_file(path) if path is not None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            )
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        place = self._place if self.path is not None else f"a temporary file in {self._place}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            size = self.num_tokens * self.dtype.itemsize / 1e6
            return OutputError(
                f"no space for the tokens in {place} after {size:,.1f} MB: free some, or choose another "
                "disk; "
                "nothing was kept"
            )
        return OutputError(f"the tokens can't be written to {place} ({error.strerror or error})")

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what is still in the buffer may find no space either
            self._stack.__exit__(kind, error, trace)

    def append(self, tokens: npt.NDArray[Any], ends: npt.ArrayLike = ()) -> None:
        """Write tokens; `ends` says after how many of them documents end (ascending)."""
        try:
            self._file.write(np.ascontiguousarray(tokens, dtype=self.dtype).data)
        except OSError as error:
            raise self._failure(error) from error
        new = np.asarray(ends, dtype=np.int64) + self.num_tokens
        self._starts.append(new)
        self.num_documents += len(new)
        self.num_tokens += len(tokens)

    def finish(self, num_bytes: int = 0) -> TokenFile:
        """Close the last document if it is open, and map the file."""
        starts = np.concatenate(self._starts)
        if starts[-1] != self.num_tokens:
            starts = np.append(starts, self.num_tokens)
        if self.num_tokens == 0:
            raise CorpusError("the corpus is empty: the sources hold no token at all")
        try:
            if self.path is not None:
                self._stack.close()  # the file takes its name
                tokens = np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.num_tokens,))
            else:
                self._file.flush()
                tokens = np.memmap(self._file, dtype=self.dtype, mode="r", shape=(self.num_tokens,))
                self._stack.close()  # the map stays
        except OSError as error:
            raise self._failure(error) from error
        return TokenFile(tokens, starts, num_bytes, self.path)


def tokenize_documents(
    documents: Iterable[Document | str],
    tokenizer: Tokenizer,
    path: str | Path | None = None,
    *,
    folder: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: ReadLog | None = None,
    total: float | None = None,
    keep_names: bool = False,
) -> TokenFile:
    """Tokenise a stream of documents into one file.

    Parameters
    ----------
    documents : iterable of Document or str
        Read once, in order, a bounded way ahead of the tokenizer.
    tokenizer : Tokenizer
        Its end-of-document id, if it has one, is appended to each document.
    path : str or Path, optional
        The file of tokens, raw and little-endian; None for a nameless temporary file (in `folder`).
    workers : int, optional
        Threads; all available cores by default. The outcome is the same for any number.
    progress, log, total : optional
        Called as `progress("tokenize", log.done, total, tokens so far)`.
    keep_names : bool
        Keep what the documents are called.

    Returns
    -------
    TokenFile
        Tokens of shape (N,), doc_starts of shape (D + 1,).

    Raises
    ------
    CorpusError
        If there is no text.
    OutputError
        If the file can't be written.
    """
    writer = TokenWriter(tokenizer.dtype, Path(path) if path is not None else None, folder=folder)
    log = log if log is not None else ReadLog()
    names = _writable(lambda: NamesWriter(folder), folder) if keep_names else None
    num_bytes = num_inner_ends = 0
    with (
        writer,
        names or contextlib.nullcontext(),
        contextlib.closing(encode_documents(documents, tokenizer, workers)) as encoded,
    ):
        for done in encoded:
            writer.append(done.tokens, done.ends)
            num_bytes += done.num_bytes
            num_inner_ends += done.num_inner_ends
            if names is not None:
                _writable(partial(_add_names, names, done.documents), folder)
            log.specials.update(done.specials)
            progress("tokenize", log.done or writer.num_tokens, total, writer.num_tokens)
        check_text(num_bytes, writer.num_documents, num_inner_ends, log)
        made = writer.finish(num_bytes)
        return made if names is None else replace(made, names=_writable(names.finish, folder))


def check_text(num_bytes: int, num_documents: int, num_inner_ends: int, log: ReadLog) -> None:
    """Refuse a corpus without text, and note what splits documents.

    Raises
    ------
    CorpusError
    """
    if num_bytes == 0:
        found = f"{num_documents} documents hold no text" if num_documents else "the sources hold no document"
        if log.num_skipped:
            found += f"; {log.num_skipped:,} were left out, the first because {log.examples[0]}"
        raise CorpusError(f"the corpus is empty: {found}")
    if num_inner_ends:
        log.notice(
            f"{num_inner_ends:,} times the text itself contains the end-of-document token, and the document is split "
            "there; name another token that ends documents to keep them whole"
        )


def encode_documents(
    documents: Iterable[Document | str], tokenizer: Tokenizer, workers: int | None = None
) -> Generator[Encoded, None, None]:
    """Tokenise a stream of documents in threads; batches in order, of about a megabyte each."""
    num_workers = workers or available_cores()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="tokenize") as pool:
        waiting: deque[Future[Encoded]] = deque()
        try:
            for batch in _batches(sound_parts(documents, tokenizer)):
                waiting.append(pool.submit(_encode, batch, tokenizer))
                while len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def name_of(document: Document) -> str | None:
    """What the index calls a document; None where it is merely numbered."""
    return (document.name if document.name is not None else document.origin) or None


def _add_names(names: NamesWriter, documents: list[Document]) -> None:
    for document in documents:
        names.add(name_of(document) or f"document {names.count + 1}", document.fields)


def _writable(write: Callable[[], _T], folder: Path | None) -> _T:
    """What writing the names returns; where they can't be written, a sentence."""
    try:
        return write()
    except OSError as error:
        place = folder or Path(tempfile.gettempdir())
        raise OutputError(
            f"the names of documents can't be written to a temporary file in {place} ({error.strerror or error}): free "
            "some space, or choose another disk; nothing was kept"
        ) from error


class Encoded(NamedTuple):
    """A batch: its tokens in one array, after how many of them documents end, and what was met on the way."""

    tokens: TokenIds
    ends: list[int]
    documents: list[Document]  # those that end there
    num_bytes: int
    num_inner_ends: int
    specials: Counter[str]


def _encode(batch: list[Part], tokenizer: Tokenizer) -> Encoded:
    end = tokenizer.end_of_document
    tail = np.array([] if end is None else [end], dtype=tokenizer.dtype)
    pieces: list[TokenIds] = []
    ends: list[int] = []
    documents: list[Document] = []
    length = num_inner_ends = 0
    specials: Counter[str] = Counter()
    encoded = iter(tokenizer.encode_batch([part.before + part.text for part in batch if part.ids is None]))
    for part in batch:
        ids = part.ids
        if ids is None:
            ids = next(encoded)
            if part.before:
                ids = ids[len(tokenizer.encode(part.before)) :]
        if tokenizer.special_tokens == "text":
            specials.update(tokenizer.specials_in(part.text))
        pieces.append(ids)
        if end is not None:  # a tokenizer may read its own end token in a text: the document ends there
            inner = np.flatnonzero(ids == end)
            num_inner_ends += len(inner)
            ends.extend(length + int(place) + 1 for place in inner)
            documents.extend([part.document] * len(inner))
        length += len(ids)
        if part.ends:
            pieces.append(tail)
            length += len(tail)
            ends.append(length)
            documents.append(part.document)
    num_bytes = sum(len(part.text.encode()) for part in batch)
    return Encoded(np.concatenate(pieces), ends, documents, num_bytes, num_inner_ends, specials)


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Lists of parts of about `BATCH_CHARS` characters together, never empty."""
    batch: list[Part] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.text) + _DOCUMENT_CHARS
        if size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
