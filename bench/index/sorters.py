"""The yardsticks of a build: suffix arrays alone, in memory; they write nothing and answer nothing."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.corpora import Corpus
from bench.index.contender import Contender


def check_suffix_array(
    tokens: np.ndarray, suffixes: np.ndarray, *, samples: int = 2_000, reach: int = 4_096
) -> str | None:
    """What is wrong with a suffix array: not a permutation, or two neighbours of a sample out of order."""
    if not np.array_equal(np.bincount(suffixes, minlength=len(tokens)), np.ones(len(tokens), np.int64)):
        return "the suffix array is no permutation"
    for rank in np.random.default_rng(0).integers(0, len(tokens) - 1, size=samples).tolist():
        left, right = (tokens[p : p + reach].tolist() for p in suffixes[rank : rank + 2].tolist())
        if left > right:
            return f"ranks {rank} and {rank + 1} are out of order"
    return None


class Sorter(Contender):
    """A contender that sorts and does nothing else."""

    in_memory = True
    notes: ClassVar[dict[str, str]] = {"build": "suffix array alone, in memory"}

    def sizes(self, corpus: Corpus, folder: Path) -> dict[str, int]:
        """See Contender."""
        return {}

    def check_build(self, corpus: Corpus, built: Any) -> str | None:
        """See Contender."""
        return check_suffix_array(corpus.tokens, built)


class Pydivsufsort(Sorter):
    """louisabraham/pydivsufsort: libdivsufsort, on uint16."""

    name = distribution = module = "pydivsufsort"

    def build(self, corpus: Corpus, folder: Path, cores: int) -> np.ndarray:
        """See Contender."""
        from pydivsufsort import divsufsort

        return divsufsort(np.array(corpus.tokens))


class Libsais16(Sorter):
    """IlyaGrebnov/libsais: induced sorting in C, on uint16; from a shared library that LIBSAIS_SO names."""

    name = distribution = "libsais16"

    def missing(self) -> str | None:
        """See Contender."""
        path = os.environ.get("LIBSAIS_SO")
        if not path:
            return "LIBSAIS_SO names no shared library (bench/README.md)"
        return None if Path(path).is_file() else f"LIBSAIS_SO names {path}, which is not there"

    def version(self) -> str:
        """See Contender; the library has no call for it."""
        return "as built"

    def build(self, corpus: Corpus, folder: Path, cores: int) -> np.ndarray:
        """See Contender."""
        library = ctypes.CDLL(os.environ["LIBSAIS_SO"])
        tokens = np.array(corpus.tokens)
        suffixes = np.empty(len(tokens), np.int32)
        result = library.libsais16(
            tokens.ctypes.data_as(ctypes.c_void_p),
            suffixes.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int32(len(tokens)),
            ctypes.c_int32(0),
            None,
        )
        if result != 0:
            raise RuntimeError(f"libsais16 returned {result}")
        return suffixes
