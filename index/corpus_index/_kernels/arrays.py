"""The arrays of an opened index as the kernels see them: named tuples instead of fifteen arguments.

numba takes the tuples as they are, but copies them at every call that isn't inlined; so there is one for each kind of
helper, and the hot ones get no more than they read (one tuple of everything cost an eighth of the speed).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def read_only(array: np.ndarray) -> np.ndarray:
    """An array as kernels only read it, of a file or made in memory: else numba compiles them for either, again."""
    view = array.view()
    view.flags.writeable = False
    return view


class TextArrays(NamedTuple):
    """Ranks to positions to tokens and documents."""

    order: np.ndarray
    tokens: np.ndarray
    doc_starts: np.ndarray
    doc_directory: np.ndarray
    document_shift: int
    num_tokens: int


class NodeArrays(NamedTuple):
    """Shared lengths and their block minima; levels: where each level of the minima begins, and the end."""

    common: np.ndarray
    minima: np.ndarray
    levels: np.ndarray


class StepArrays(NamedTuple):
    """Where each token stands among the continuations; symbols: first, list, directory, shift of each, flat."""

    symbols: np.ndarray
    near: np.ndarray
    far: np.ndarray
    directory: np.ndarray


class CompactSteps(NamedTuple):
    """What `StepArrays` tells, of a compact index; see `compact` and index/README.md.

    symbols: first, entries before, first word of the high bits and of the low ones of each token's list, flat.
    """

    symbols: np.ndarray
    high: np.ndarray
    low: np.ndarray
    ones: np.ndarray
    zeros: np.ndarray
    next_tokens: np.ndarray
    endings: np.ndarray
    after_endings: np.ndarray


class CompactText(NamedTuple):
    """What `TextArrays` tells, of a compact index: by walking on to a rank whose position is stored.

    order is of size 0: what asks for it ahead asks for nothing. The text goes without the documents' starts: contexts
    are compared by what `nodes` says they share.
    """

    order: np.ndarray
    steps: CompactSteps
    nodes: NodeArrays
    marks: np.ndarray
    marked: np.ndarray
    samples: np.ndarray
    rank_samples: np.ndarray
    sample_shift: int
    num_tokens: int


class OwnRanks(NamedTuple):
    """The ranks of a document, entries a .. e − 1 of ranks, ascending: what tells its own where no order does."""

    ranks: np.ndarray
    a: int
    e: int


class IndexArrays(NamedTuple):
    """All that walking the index needs; see index/README.md for each array."""

    text: TextArrays | CompactText
    nodes: NodeArrays
    steps: StepArrays | CompactSteps
    num_starts: int
