"""Kneser–Ney as an ARPA file, the text format of n-gram models that KenLM, SRILM and others read.

An n-gram w_1 … w_n is listed with log10 p(w_n | w_1 … w_{n−1}) and log10 of the backoff weight of w_1 … w_n as a
context. A reader takes the longest n-gram that is listed, and multiplies the backoff weights of the longer contexts
that are. That is what interpolation says as well, since p_n(w | h) = γ(h) · p_{n−1}(w | h′) where h·w was not seen.

The file holds every n-gram of the corpus, the start of a document as <s>. Cost: two scans of the context order for each
order, memory of 9 bytes a token.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import singledispatch
from pathlib import Path
from typing import BinaryIO

import numpy as np

from corpus_index import files
from corpus_index._kernels import ngrams, walk
from corpus_index.core.checks import check_index
from corpus_index.core.matching import Matcher
from corpus_index.errors import IndexExistsError, IndexWriteError, QueryError
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import fitted

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
_RESERVED = (START, END, UNKNOWN, "<UNK>")
_BLANK = re.compile(r"[\s\0]|^$", re.ASCII)
_ROOM = 1 << 24  # bytes of text that are made at a time
_NUMBERS = 48  # bytes of a line that aren't words, at most


@singledispatch
def write_arpa(
    index: Matcher,
    estimator: Estimator,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    words: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[int, ...]:
    """Write interpolated Kneser–Ney as an ARPA model, which gives any text the probabilities that the index gives it.

    Parameters
    ----------
    index : Matcher
        Of a sharded index one whole index is built for it, beside its folder, and removed afterwards.
    estimator : Estimator
        kneser-ney or modified-kneser-ney with a max_order; fitted here if it isn't.
    file : path or binary file
        A path appears when the file is whole; one that ends in .gz is compressed.
    words : sequence of V str, optional
        What each token is called, without blanks; default: its id in decimal.
    overwrite : bool
        Whether a file at that path may be replaced.
    progress : callable, optional
        Called with n and the share of the n-grams of that order that is written.

    Returns
    -------
    tuple of max_order + 1 ints
        How many n-grams are listed, for n = 1, 2, ….

    Raises
    ------
    QueryError
        If the estimator is of another kind or has no bound, or the words don't fit.
    IndexExistsError, IndexWriteError
        If the file exists, or can't be written.

    Notes
    -----
    Special words, as KenLM has them. The end-of-document token is </s>, whatever it is called; an index without one has
    </s> too, since readers ask for it, with nothing (−99). <s> has a probability of 1, which no reader uses, and its
    backoff weight. <unk> stands for the ids that the corpus lacks: with convention="kenlm" for all of them together,
    which makes the file that lmplz makes; else for any one of them, so that KenLM gives each of them what the index
    gives it, and the listed probabilities sum to less than 1. With max_order 0 the file is of order 1, which KenLM
    doesn't read.

    O(N) time an order; 9 bytes of memory a token. Sources: Chen & Goodman (1999), Heafield et al. (2013).

    Examples
    --------
    >>> import io, tempfile, numpy as np
    >>> from corpus_index import build_index, make_estimator
    >>> index = build_index(np.array([1, 2, 1, 2, 3]), tempfile.mkdtemp() + "/index")
    >>> write_arpa(index, make_estimator("kneser-ney", 1), io.BytesIO())  # three tokens and three special words
    (6, 4)
    """
    check_index(index)
    check_estimator(estimator)
    names = _names(index, words)
    if not isinstance(file, (str, os.PathLike)) and not callable(getattr(file, "write", None)):
        raise QueryError(f"file {file!r} is neither a path nor a file that can be written to")
    with index.following_arrays():
        writer = _Writer(index, fitted(index, estimator), names, progress or (lambda order, share: None))
        if isinstance(file, (str, os.PathLike)):
            with _whole_file(Path(os.path.abspath(file)), overwrite) as out:
                return writer.write(out)
        return writer.write(file)


def check_estimator(estimator: Estimator) -> None:
    """Refuse an estimator that an ARPA file can't hold.

    Raises
    ------
    QueryError
    """
    if "convention" not in estimator.row.parameters:
        raise QueryError(
            f"an ARPA file can't hold {estimator.name}: choose kneser-ney or modified-kneser-ney, whose lower orders "
            "are distributions of their own"
        )
    if estimator.max_order is None:
        raise QueryError("an ARPA file needs a bound on its n-grams: give the estimator a max_order")


class _Writer:
    """One export: what all orders need."""

    def __init__(
        self, index: Matcher, estimator: Estimator, names: list[str | None], progress: Callable[[int, float], None]
    ) -> None:
        self.index, self.estimator, self.names, self.progress = index, estimator, names, progress
        self.max_order = estimator.max_order or 0
        self.next_tokens, self.common = index.array("next_tokens"), index.array("common")
        # the contexts that a document's start makes shorter than the orders
        self.known = np.full(index.num_tokens, 255, np.uint8)
        walk.mark_short_contexts(index.kernel_arrays(), self.next_tokens, min(self.max_order + 1, 254), self.known)
        self.discounts = np.array(estimator.discounts, np.float64)
        encoded = [(name or "").encode() for name in [*names, START]]
        self.words = np.frombuffer(b"".join(encoded), np.uint8)
        self.word_offsets = np.cumsum([0, *map(len, encoded)])
        self.first = index.array("symbols")[:, 0].astype(np.int64)
        # by the first rank of a context, log10 of its backoff weight; by rank, p of the token by the order below
        self.backoffs = np.zeros(index.num_tokens, np.float32)
        base = estimator.base(index)
        self.probabilities = base.astype(np.float32)[self.next_tokens]

    def write(self, out: BinaryIO) -> tuple[int, ...]:
        """All sections."""
        unigrams = self._unigrams()
        counts = np.zeros(self.max_order + 1, np.int64)
        ngrams.count_ngrams(self.next_tokens, self.common, self.known, self.index.num_symbols, self.max_order, counts)
        listed = (len(unigrams), *counts[1:].tolist())
        head = "".join(f"ngram {n}={count}\n" for n, count in enumerate(listed, 1))
        out.write(f"\\data\\\n{head}\n\\1-grams:\n".encode())
        out.write("".join(unigrams).encode())
        self.progress(1, 1.0)
        for order in range(1, self.max_order + 1):
            out.write(f"\n\\{order + 1}-grams:\n".encode())
            self._section(order, out)
        out.write(b"\n\\end\\\n")
        return listed

    def _unigrams(self) -> list[str]:
        """The lines of the first section."""
        index, first = self.index, self.first
        base = self.estimator.base(index)
        seen = index.symbol_counts > 0
        if self.max_order > 0:
            self._weigh(1)
        end = _end_symbol(index)
        lacking = index.vocab_size - int(seen.sum()) - (index.end_of_document is not None and end is None)
        unknown = base[-1] * (lacking if self.estimator.convention == "kenlm" else min(lacking, 1))
        lines = [self._line(unknown, UNKNOWN, 0.0), self._line(1.0, START, float(self.backoffs[0]))]
        if end is None:
            lines.append(self._line(0.0 if index.end_of_document is None else base[-1], END, 0.0))
        for symbol in np.flatnonzero(seen).tolist():
            followed = first[symbol + 1] > first[symbol]
            backoff = float(self.backoffs[first[symbol]]) if followed else 0.0
            lines.append(self._line(base[symbol], str(self.names[symbol]), backoff))
        return lines

    def _line(self, probability: float, name: str, backoff: float) -> str:
        log = math.log10(probability) if probability > 0 else ngrams.NOTHING
        ending = f"\t{backoff:.7f}" if self.max_order > 0 else ""
        return f"{min(0.0, log):.7f}\t{name}{ending}\n"

    def _weigh(self, order: int) -> None:
        ngrams.backoff_weights(
            self.next_tokens,
            self.common,
            self.known,
            self.index.num_symbols,
            self.discounts,
            order,
            self.max_order,
            self.backoffs,
        )

    def _section(self, order: int, out: BinaryIO) -> None:
        """The n-grams of order + 1 symbols."""
        index, total = self.index, self.index.num_tokens
        if order < self.max_order:
            self._weigh(order + 1)
        endings, followed_of = index.array("endings"), self.first[:-1].copy()
        symbols = np.arange(index.num_symbols, dtype=np.uint64)
        ending_of = np.searchsorted(endings, symbols << np.uint64(32))
        line_bytes = _NUMBERS + (order + 1) * (int(np.diff(self.word_offsets).max()) + 1)
        text, begin = np.empty(max(_ROOM, line_bytes), np.uint8), 0
        positions, tokens = np.asarray(index.array("order")), np.asarray(index.array("tokens"))
        while begin < total:
            stop, used = ngrams.write_ngrams(
                self.next_tokens,
                self.common,
                self.known,
                positions,
                tokens,
                index.num_symbols,
                self.discounts,
                order,
                self.max_order,
                self.words,
                self.word_offsets,
                endings,
                ending_of,
                followed_of,
                self.backoffs,
                self.probabilities,
                begin,
                line_bytes,
                text,
            )
            if stop == begin:
                text = np.empty(2 * text.size, np.uint8)
            out.write(text[:used].data)
            begin = stop
            self.progress(order + 1, begin / total)


def _end_symbol(index: Matcher) -> int | None:
    """The symbol of the end-of-document token, None where the corpus lacks it."""
    if index.end_of_document is None:
        return None
    symbol = int(index.symbols_of(np.array([index.end_of_document], np.int64))[0])
    return symbol if symbol < index.num_symbols and index.symbol_counts[symbol] > 0 else None


def _names(index: Matcher, words: Sequence[str] | None) -> list[str | None]:
    """What each symbol is called; None for those that the corpus lacks.

    Raises
    ------
    QueryError
        If the words aren't V, or one that the corpus holds is empty, has a blank, is reserved or stands twice.
    """
    if words is not None and len(words) != index.vocab_size:
        raise QueryError(f"words has {len(words):,} entries, the vocabulary {index.vocab_size:,}: name every token")
    names: list[str | None] = [None] * index.num_symbols
    end = _end_symbol(index)
    taken: dict[str, int] = {}
    symbols = np.flatnonzero(index.symbol_counts > 0)
    for symbol, token in zip(symbols.tolist(), index.ids_of(symbols).tolist(), strict=True):
        word = END if symbol == end else str(token) if words is None else words[token]
        if symbol != end and (word in _RESERVED or _BLANK.search(word) or not _encodable(word)):
            raise QueryError(
                f"token {token} can't be called {word!r} in an ARPA file: a word has no blank and is none of "
                f"{', '.join(_RESERVED)}"
            )
        if word in taken:
            raise QueryError(f"tokens {taken[word]} and {token} are both called {word!r}: give each its own word")
        taken[word] = token
        names[symbol] = word
    return names


def _encodable(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def _whole_file(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that takes the name path, whole, at the end of the block; packed if it ends in .gz."""
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(files.whole_file(path, overwrite=overwrite))
            out = raw
            if path.suffix == ".gz":  # without name and time: the same model makes the same bytes
                out = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, 0))  # type: ignore[assignment]
            yield out
    except (FileExistsError, IsADirectoryError) as error:
        raise IndexExistsError(f"{path} exists already: choose another name, or ask to overwrite it") from error
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 1e6 if path.parent.is_dir() else 0.0
        raise IndexWriteError(
            f"{path} can't be written ({error.strerror or error}; {free:,.0f} MB are free there): "
            "choose another place; nothing was kept"
        ) from error
