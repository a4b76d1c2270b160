"""The arrays of an opened index as the kernels see them: named tuples instead of fifteen arguments.

numba takes the tuples as they are, but copies them at every call that isn't inlined; so there is one for each kind of
helper, and the hot ones get no more than they read (one tuple of everything cost an eighth of the speed).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class TextArrays(NamedTuple):
    """Ranks to positions to tokens and documents."""

    order: np.ndarray
    tokens: np.ndarray
    doc_starts: np.ndarray
    doc_directory: np.ndarray
    document_shift: int


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


class IndexArrays(NamedTuple):
    """All that walking the index needs; see index/README.md for each array."""

    text: TextArrays
    nodes: NodeArrays
    steps: StepArrays
    num_starts: int
