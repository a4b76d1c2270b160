"""Where each token stands among the continuations: the lists that a step of the walk counts by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from corpus_index._kernels import companions

_BUCKET = 16  # entries of an occurrence list that one directory entry stands for, on average
_NEAR_COUNT = 4096  # tokens that occur as often are listed in 16 bits an entry


def occurrence_lists(
    next_tokens: np.ndarray,
    last: np.ndarray,
    num_symbols: int,
    num_starts: int,
    parts: list[tuple[int, int]],
    each: Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]],
) -> dict[str, np.ndarray]:
    """The occurrence lists of an index, and the ends of its documents, as the format names them.

    Parameters
    ----------
    next_tokens : ndarray of shape (N,), uint16 or uint32
        The continuation of each rank.
    last : ndarray of shape (D′,), int64
        The ranks of the documents' last positions, ascending.
    num_symbols, num_starts : int
    parts : list of (lo, hi)
        Ranks to a thread.
    each : callable
        Calls a function with each of some tuples of arguments, in threads.
    """
    n = next_tokens.size
    counts = [np.zeros(num_symbols, np.uint32) for _ in parts]
    each(
        companions.count_continuations,
        [(next_tokens, last, count, lo, hi) for (lo, hi), count in zip(parts, counts, strict=True)],
    )
    total = np.zeros(num_symbols, np.int64)
    for count in counts:
        total += count
    shifts = np.ceil(np.log2(_BUCKET * n / np.maximum(total, 1))).astype(np.int64)
    shifts = np.minimum(np.maximum(shifts, 3), 31)
    near = (shifts <= 16) | (total >= _NEAR_COUNT)
    shifts[near] = np.minimum(shifts[near], 16)
    sizes = np.where(total > 0, (n >> shifts) + 2, 0)
    symbols = np.zeros((num_symbols + 1, 4), np.uint32)
    symbols[:, 0] = num_starts + _running(total)
    symbols[:-1, 1] = np.where(near, _running(total * near)[:-1], _running(total * ~near)[:-1])
    symbols[:, 2] = _running(sizes)
    symbols[:-1, 3] = shifts
    flat = symbols.reshape(-1)
    near_list = np.empty(int((total * near).sum()), np.uint16)
    far_list = np.empty(int((total * ~near).sum()), np.uint32)
    directory = np.zeros(int(sizes.sum()) + 2, np.uint32)
    taken = np.zeros(num_symbols, np.uint32)
    arguments, spills = [], []
    for (lo, hi), count in zip(parts, counts, strict=True):
        spills.append(np.zeros(num_symbols, np.uint32))
        arguments.append((next_tokens, last, flat, taken.copy(), near_list, far_list, directory, spills[-1], lo, hi))
        taken += count
    each(companions.fill_occurrences, arguments)
    for (lo, _), spill in zip(parts, spills, strict=True):
        companions.add_spill(flat, directory, spill, lo)
    companions.finish_directory(flat, total, n, directory)
    endings = np.sort((next_tokens[last].astype(np.uint64) << np.uint64(32)) | last.astype(np.uint64))
    return {
        "symbols": symbols,
        "near": near_list,
        "far": far_list,
        "occurrence_directory": directory,
        "endings": endings,
    }


def _running(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(values)])
