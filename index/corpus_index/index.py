"""The index, opened: the whole API on one page. Everything here is handed on to the floor that does it.

What stands where is in `core.matching`, what estimators are in `estimators`, what they make of a batch in `targets`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index.core.matching import Matcher
from corpus_index.errors import IndexFormatError
from corpus_index.estimators import resolving
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import EstimatorLike
from corpus_index.integrity import Check, believe
from corpus_index.targets import exclusion, interpolated, request
from corpus_index.targets import explain as explaining
from corpus_index.targets.explain import Explanation
from corpus_index.targets.scorer import Scorer
from corpus_index.targets.types import MixedTargets, RowTable, SparseTargets


class CorpusIndex(Matcher):
    """An index on disk, opened for reading; make one with `build_index` or `CorpusIndex.open`.

    A context manager; `close` closes the files. Pickles as its path, so that workers open their own map. Counting
    is inherited: `count`, `positions`, `document_of`, `next_tokens`, `match`, `next_tokens_batch`, `rows_of`,
    `documents_of`, and `tokens`, `doc_starts`, `document`, `document_names`, `attachment`, `size_bytes`.

    Attributes
    ----------
    path : Path
    num_tokens, num_documents, vocab_size : int
        N, D and V.
    end_of_document : int or None
        The token after which a context starts anew.
    metadata : dict
        What the builder wanted kept.
    fingerprint : str
        Identifies the index's content (SHA-256, hex).
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check: Check = "first") -> CorpusIndex:
        """Open the index at path; a millisecond, whatever its size, where its files were checked before.

        Parameters
        ----------
        path : path
        check : {"always", "first", "never"}
            When all files are compared with their checksums: at the first opening on this machine, which a stamp in
            the user's cache folder remembers (`XDG_CACHE_HOME`, ~/.cache); at this one in any case; or not at all.
            Whatever an unchecked index holds, questions end without a crash, but their answers may be wrong.

        Raises
        ------
        IndexFormatError
            If there is no index, it is damaged or foreign, or of a newer format; a damaged file is named.
        QueryError
            If check is another word.

        Notes
        -----
        A check reads every file once, some GB/s and core where they are in memory, on all cores.
        """
        return cls(path, check)

    def __enter__(self) -> CorpusIndex:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.fingerprint, self._checked)

    def fitted(self, estimator: EstimatorLike, max_order: int | None = None) -> Estimator:
        """An estimator, fitted at its first use if need be, then remembered; see `estimators.resolving.fitted`."""
        return resolving.fitted(self, estimator, max_order)

    def base_distribution(self, estimator: EstimatorLike = "witten-bell") -> np.ndarray:
        """The distribution of an estimator's empty context: shape (V,), float32; see `Estimator.base`."""
        return request.base_distribution(self, estimator)

    def row_table(self, estimator: EstimatorLike = "witten-bell") -> RowTable:
        """The rows that an estimator's mixed targets refer to; see `targets.interpolated.row_table`."""
        return interpolated.row_table(self, estimator)

    def smoothed_targets(
        self,
        input_ids: ArrayLike,
        next_ids: ArrayLike | None = None,
        *,
        estimator: EstimatorLike = "witten-bell",
        max_order: int | None = None,
        leave_out: str | None = None,
        top_k: int = 64,
        top_p: float = 1.0,
        shortlist: int | None = 64,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
        only_last: bool = False,
    ) -> SparseTargets:
        """Next-token distributions, sparse + rest · base; see `targets.interpolated.smoothed_targets`."""
        return interpolated.smoothed_targets(
            self,
            input_ids,
            next_ids,
            estimator=estimator,
            max_order=max_order,
            leave_out=leave_out,
            top_k=top_k,
            top_p=top_p,
            shortlist=shortlist,
            starts_document=starts_document,
            positions=positions,
            only_last=only_last,
        )

    def sampled_targets(
        self,
        input_ids: ArrayLike,
        next_ids: ArrayLike | None = None,
        *,
        draws: int,
        seed: int,
        estimator: EstimatorLike = "witten-bell",
        max_order: int | None = None,
        leave_out: str | None = None,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
    ) -> SparseTargets:
        """Random samples of the distributions as targets; see `targets.interpolated.sampled_targets`."""
        return interpolated.sampled_targets(
            self,
            input_ids,
            next_ids,
            draws=draws,
            seed=seed,
            estimator=estimator,
            max_order=max_order,
            leave_out=leave_out,
            starts_document=starts_document,
            positions=positions,
        )

    def mixed_targets(
        self,
        input_ids: ArrayLike,
        next_ids: ArrayLike | None = None,
        *,
        estimator: EstimatorLike = "witten-bell",
        max_order: int | None = None,
        leave_out: str | None = None,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
        only_last: bool = False,
    ) -> MixedTargets:
        """Next-token distributions, exact, in mixed form; see `targets.interpolated.mixed_targets`."""
        return interpolated.mixed_targets(
            self,
            input_ids,
            next_ids,
            estimator=estimator,
            max_order=max_order,
            leave_out=leave_out,
            starts_document=starts_document,
            positions=positions,
            only_last=only_last,
        )

    def next_probabilities(
        self,
        input_ids: ArrayLike,
        next_ids: ArrayLike,
        *,
        estimator: EstimatorLike = "witten-bell",
        max_order: int | None = None,
        leave_out: str | None = None,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
    ) -> np.ndarray:
        """Probabilities of the tokens that follow, (Q,) float64; see `targets.interpolated.next_probabilities`."""
        return interpolated.next_probabilities(
            self,
            input_ids,
            next_ids,
            estimator=estimator,
            max_order=max_order,
            leave_out=leave_out,
            starts_document=starts_document,
            positions=positions,
        )

    def scorer(self, estimator: EstimatorLike = "modified-kneser-ney", max_order: int = 4) -> Scorer:
        """Tables of every n-gram's probability, for Kneser–Ney and whole texts; see `targets.scorer.Scorer`."""
        return Scorer(self, estimator, max_order)

    def backoff_scores(
        self,
        input_ids: ArrayLike,
        next_ids: ArrayLike,
        *,
        alpha: float = 0.4,
        max_order: int | None = None,
        leave_out: str | None = None,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
    ) -> np.ndarray:
        """Scores of stupid backoff, as published, (Q,) float64; see `targets.exclusion.backoff_scores`."""
        return exclusion.backoff_scores(
            self,
            input_ids,
            next_ids,
            alpha=alpha,
            max_order=max_order,
            leave_out=leave_out,
            starts_document=starts_document,
            positions=positions,
        )

    def explain(
        self,
        context: ArrayLike,
        *,
        estimator: EstimatorLike = "witten-bell",
        max_order: int | None = None,
        starts_document: bool = False,
        top: int = 10,
    ) -> Explanation:
        """The distribution after one context, order by order; see `targets.explain.explain`."""
        return explaining.explain(
            self, context, estimator=estimator, max_order=max_order, starts_document=starts_document, top=top
        )


def _reopen(path: str, fingerprint: str, checked: str) -> CorpusIndex:
    believe(checked)  # the same files aren't checked again for each worker
    index = CorpusIndex.open(path, check="first" if checked else "never")
    if index.fingerprint != fingerprint:
        raise IndexFormatError(f"the index at {path} was replaced since it was pickled: open it again")
    return index
