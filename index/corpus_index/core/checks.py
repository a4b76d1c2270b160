"""What a caller hands in, checked: every slip is a QueryError of one sentence, with the value and the way out."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike

from corpus_index.errors import QueryError

MOST = 2**31 - 1
"""Of whole numbers that stand for lengths and counts of results."""


def check_whole(value: object, name: str, least: int, *, most: int = MOST, none: str | None = None) -> None:
    """Refuse what isn't a whole number from least to most; none: what None would stand for, where it is allowed."""
    if value is None and none is not None:
        return
    otherwise = "" if none is None else f" (None: {none})"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise QueryError(f"{name} {value!r} must be a whole number{otherwise}")
    if value < least:
        wanted = "0 or more" if least == 0 else f"at least {least}"
        raise QueryError(f"{name} {value} must be {wanted}{otherwise}")
    if value > most:
        raise QueryError(f"{name} {value} is too large: it must be at most {most}{otherwise}")


def check_integer(value: object, name: str) -> None:
    """Refuse what isn't a whole number, whatever its size."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise QueryError(f"{name} {value!r} must be a whole number")


def check_number(value: object, name: str) -> None:
    """Refuse what isn't a number: a text, None, NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or value != value:
        raise QueryError(f"{name} {value!r} must be a number")


def check_share(value: object, name: str) -> None:
    """Refuse what isn't a number above 0 and at most 1."""
    check_number(value, name)
    if not 0 < value <= 1:  # type: ignore[operator]
        raise QueryError(f"{name} {value} must be above 0 and at most 1")


def check_match_options(min_count: object, max_order: object) -> None:
    """Refuse bounds that no match can keep."""
    check_whole(min_count, "min_count", 1, most=2**62)
    check_whole(max_order, "max_order", 0, none="no bound")


def check_index(index: object) -> None:
    """Refuse what can't be asked as an index is."""
    if not hasattr(index, "fingerprint"):
        raise QueryError(f"index {index!r} is no index: open one, with open_index(path)")


def check_generator(generator: object) -> None:
    """Refuse what isn't numpy's source of random numbers."""
    if not isinstance(generator, np.random.Generator):
        raise QueryError(f"generator {generator!r} must be a numpy Generator: np.random.default_rng(seed) makes one")


def is_choice(value: object, choices: Collection[object]) -> bool:
    """Whether a value is one of some words, or None where that is among them; an array never is."""
    return (value is None or isinstance(value, str)) and value in choices


def check_seed(seed: object) -> None:
    """Refuse what can't begin a stream of random numbers."""
    check_whole(seed, "seed", 0, most=2**128 - 1)


def as_array(values: ArrayLike, name: str) -> np.ndarray:
    """An array; lists of unequal lengths are refused."""
    try:
        return np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"{name} must be an array, with rows of one length ({error})") from None


def as_starts(starts_document: bool | ArrayLike, num_rows: int) -> np.ndarray:
    """Which rows begin where a document begins: shape (num_rows,), bool."""
    starts = as_array(starts_document, "starts_document")
    if starts.dtype.kind != "b" and starts.size:
        raise QueryError(f"starts_document must be True or False, not {starts.dtype}")
    if starts.shape not in ((), (1,), (num_rows,)):
        raise QueryError(
            f"starts_document must be one value, or one for each of {num_rows} rows, not of shape {starts.shape}"
        )
    return np.broadcast_to(starts.astype(np.bool_), (num_rows,)).copy()
