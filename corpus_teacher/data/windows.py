"""Windows of a token array for training: map-style, shuffled by a seed, and free of torch.

The naive definition: cut the corpus into pieces of T tokens, drop the rest, and shuffle the pieces.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index.files import stamp_of

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.settings import check_whole, is_whole


class TokenWindows:
    """Fixed-length windows of a corpus, as a map-style dataset (`len` and `[i]`).

    Windows don't overlap and may span documents, as packed pre-training rows do. A corpus teacher knows by their
    position where in them documents end, with or without an end-of-document token, and begins contexts anew there;
    students and neural teachers read on, as in packed pre-training. With `shuffle`, window `i` is the i-th of a
    permutation that only `seed` decides, so that two runs with one seed see the same data in the same order.

    Parameters
    ----------
    tokens : ndarray of shape (N,), integer
        A memory map of a file is pickled as its path: every worker opens its own.
    length : int
        T.
    seed : int
        Of the permutation.
    doc_starts : ndarray of shape (D + 1,), int, optional
        Where documents begin; without it only the first window starts a document.
    shuffle : bool
        False: in the order of the corpus.
    limit : int, optional
        At most so many windows (the first of the permutation).

    Raises
    ------
    ConfigError
        If the length is below 1, or the corpus is shorter than one window.
    InputError
        When unpickled: the file of the tokens was replaced.

    Examples
    --------
    >>> windows = TokenWindows(np.arange(10), 4, shuffle=False)
    >>> len(windows), windows[1]["input_ids"].tolist(), windows[1]["starts_document"]
    (2, [4, 5, 6, 7], False)
    """

    def __init__(
        self,
        tokens: npt.NDArray[Any],
        length: int,
        *,
        seed: int = 0,
        doc_starts: npt.NDArray[Any] | None = None,
        shuffle: bool = True,
        limit: int | None = None,
    ) -> None:
        if not is_whole(length) or length < 1:
            raise ConfigError(f"a window of {length!r} tokens is none: the length must be a whole number of at least 1")
        check_whole(seed, "seed", 0)
        if not isinstance(shuffle, bool):
            raise ConfigError(f"shuffle is {shuffle!r}: give true or false")
        if limit is not None:
            check_whole(limit, "limit", 0)
        if not isinstance(tokens, np.ndarray):
            tokens = _whole_numbers(tokens, "tokens")
        _whole_numbers(tokens[:1], "tokens")
        count = len(tokens) // length
        if count == 0:
            raise ConfigError(f"{len(tokens)} tokens don't fill one window of {length}: shorten the window")
        self.tokens = tokens
        self._stamp = _stamp_of(tokens)
        self.length = length
        begins = np.arange(count, dtype=np.int64) * length
        if shuffle:
            np.random.default_rng(seed).shuffle(begins)
        self._begins = begins[:limit]
        starts = np.zeros(1, dtype=np.int64) if doc_starts is None else _whole_numbers(doc_starts, "doc_starts")
        place = np.searchsorted(starts, self._begins)
        self._starts_document = (place < len(starts)) & (starts[np.minimum(place, len(starts) - 1)] == self._begins)

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """`input_ids` (T,) int64, `starts_document` bool, `position` int (in the corpus) of one window."""
        begin = int(self._begins[number])
        return {
            "input_ids": self.tokens[begin : begin + self.length].astype(np.int64),
            "starts_document": bool(self._starts_document[number]),
            "position": begin,
        }

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        tokens = self.tokens
        if isinstance(tokens, np.memmap) and tokens.filename is not None and _is_whole(tokens):
            state["tokens"] = (tokens.filename, tokens.dtype, tokens.offset, tokens.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["tokens"], tuple):
            filename, dtype, offset, shape = state["tokens"]
            try:
                with open(filename, "rb") as file:
                    if state.get("_stamp") not in (None, stamp_of(os.fstat(file.fileno()))):
                        raise InputError(f"{filename} was replaced since the windows were cut: cut them again")
                    state["tokens"] = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
            except OSError as error:
                reason = error.strerror or error
                raise InputError(f"{filename} can't be read ({reason}): cut the windows again") from error
        self.__dict__.update(state)


def _stamp_of(tokens: npt.NDArray[Any]) -> tuple[int, ...] | None:
    """What tells a mapped file from its successor: of an index the file that is mapped, of others the one there now."""
    if not isinstance(tokens, np.memmap) or tokens.filename is None:
        return None
    stamp: tuple[int, ...] | None = getattr(tokens, "stamp", None)
    with contextlib.suppress(OSError):
        stamp = stamp or stamp_of(os.stat(tokens.filename))
    return stamp


def _is_whole(tokens: np.memmap[Any, Any]) -> bool:
    """Whether the array is the map itself; a slice keeps the offset of the map it was cut from."""
    return not isinstance(tokens.base, np.ndarray)


def _whole_numbers(given: Any, name: str) -> npt.NDArray[np.int64]:
    """An array in one dimension, of whole numbers."""
    try:
        made = np.asarray(given)
    except ValueError:  # lists of unequal lengths
        made = np.empty(0)
    if made.ndim != 1 or made.dtype.kind not in "iu":
        raise ConfigError(f"{name} is {type(given).__name__}: give whole numbers in one dimension")
    return made
