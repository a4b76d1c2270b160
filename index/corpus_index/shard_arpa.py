"""An ARPA file of several indexes: they are joined for it, since a file of n-grams has to have them in one order."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from corpus_index.arpa import check_estimator, write_arpa
from corpus_index.build import build_index
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import fitted
from corpus_index.sharded.sharded_index import ShardedIndex


@write_arpa.register
def _(
    index: ShardedIndex, estimator: Estimator, file: str | os.PathLike[str] | BinaryIO, **options: Any
) -> tuple[int, ...]:
    """Those of all shards together, by way of one index that is built for it: the memory and the disk of a whole one.

    The estimator is fitted on the shards, as everywhere.
    """
    check_estimator(estimator)
    made = replace(fitted(index, estimator), fingerprint=None)
    with (
        tempfile.TemporaryDirectory(dir=index.path.parent, prefix=f".{index.path.name}.joined-") as folder,
        build_index(
            np.asarray(index.tokens),
            os.path.join(folder, "index"),
            doc_starts=index.doc_starts,
            vocab_size=index.vocab_size,
            end_of_document=index.end_of_document,
        ) as whole,
    ):
        return write_arpa(whole, made, file, **options)
