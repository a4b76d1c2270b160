"""Fitting an estimator on an index and keeping it in a file: `corpus-teacher teacher fit`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import CorpusIndex, Estimator, EstimatorLike, resolve_estimator, working_s
from corpus_index.estimators.held_out_evidence import originals

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.opening import open_index
from corpus_teacher.errors import ConfigError, IndexExistsError, OutputError

_ROW, _ROWS = 256, 200  # tokens of the evidence of estimators whose fit has none of its own


@dataclass(frozen=True)
class FitAnswer:
    """What `corpus-teacher teacher fit` tells.

    Parameters
    ----------
    path, index, fingerprint : str
        Of the file, and of the index.
    estimator : str
    max_order : int, optional
    heads : list of str
        What the columns of `parameters` are.
    parameters : list of [order, value, …]
        What was fitted, by order; the last line goes on for longer contexts.
    nats, bits : float
        Cross-entropy per token of the evidence: positions of the index, each without its document.
    positions : int
    by_blocks : bool
        Whether the corpus has so few documents that blocks stood in for them.
    copies : int
        Documents that mostly copy others and gave no evidence.
    facts : mapping
        All that the estimator tells of its fit.
    seconds : float
    """

    path: str
    index: str
    fingerprint: str
    estimator: str
    max_order: int | None
    heads: list[str]
    parameters: list[list[float]]
    nats: float
    bits: float
    positions: int
    by_blocks: bool
    copies: int
    facts: Mapping[str, Any]
    seconds: float


def default_path(index: CorpusIndex, estimator: Estimator) -> Path:
    """Beside the index: DIR.NAME.json, or DIR.NAME-ORDER.json where there is a bound."""
    bound = "" if estimator.max_order is None else f"-{estimator.max_order}"
    return index.path.with_name(f"{index.path.name}.{estimator.name}{bound}.json")


def fit_estimator(
    path: str | Path,
    estimator: EstimatorLike,
    *,
    max_order: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> FitAnswer:
    """Fit an estimator on an index, save it, and tell what was fitted.

    Parameters
    ----------
    path : str or Path
        Of the index.
    estimator : str, mapping or Estimator
        See `corpus_index.resolve_estimator`; settings that it brings stay.
    max_order : int, optional
        Tokens of the longest context; None: no bound.
    out : str or Path, optional
        The file; by default see `default_path`.
    overwrite : bool
        Replace the file if it exists.

    Raises
    ------
    ConfigError, QueryError, IndexFormatError, IndexExistsError, IndexWriteError, OutputError
    """
    if max_order is not None and max_order < 0:
        raise ConfigError(f"max_order {max_order} is too small: it must be at least 0")
    with open_index(path) as index:
        made = resolve_estimator(estimator, index, max_order)
        target = default_path(index, made) if out is None else Path(out)
        if os.path.lexists(target) and not overwrite:
            raise IndexExistsError(f"{target} exists already: choose another name, or ask to overwrite it")
        _check_folder(target)
        progress("fit", 0, None)
        begin = working_s()
        fitted = made.fit(index)
        seconds = working_s() - begin
        fitted.save(target, overwrite=overwrite)
        facts = fitted.facts
        if "nats" in facts:
            nats, positions = float(facts["nats"]), int(facts["positions"])
        else:
            progress("measure", 0, None)
            nats, positions = document_nats(index, fitted)
        heads, parameters = fitted.summary()
        return FitAnswer(
            path=str(target),
            index=str(index.path),
            fingerprint=index.fingerprint,
            estimator=fitted.name,
            max_order=fitted.max_order,
            heads=heads,
            parameters=parameters,
            nats=nats,
            bits=nats / float(np.log(2)),
            positions=positions,
            by_blocks=bool(facts.get("by_blocks", False)),
            copies=int(facts.get("copies", 0)),
            facts=facts,
            seconds=seconds,
        )


def _check_folder(target: Path) -> None:
    """Refuse a file that can't be written, before anything is fitted."""
    folder = target.absolute().parent
    if not folder.is_dir():
        raise OutputError(
            f"the estimator {target} can't be written: there is no folder {folder}; make it, or name another file"
        )
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the estimator {target} can't be written: no permission in {folder}; name another file")


def document_nats(index: CorpusIndex, estimator: Estimator, seed: int = 0) -> tuple[float, int]:
    """Cross-entropy in nats per token at sampled positions of an index, each without its document; and how many.

    Infinite where a token has probability 0. The rows begin anywhere in documents that aren't copies.
    """
    documents, _ = originals(index)
    starts, sizes = index.doc_starts[documents], np.diff(index.doc_starts)[documents]
    generator = np.random.default_rng(seed)
    chosen = generator.choice(documents.size, min(_ROWS, index.num_tokens), p=sizes / sizes.sum())
    begins = starts[chosen] + (generator.random(chosen.size) * np.maximum(1, sizes[chosen] - _ROW)).astype(np.int64)
    ends = np.minimum(begins + _ROW, starts[chosen] + sizes[chosen])
    length = min(_ROW, index.num_tokens)
    begins = np.minimum(begins, index.num_tokens - length)
    places = begins[:, None] + np.arange(length)
    ids = index.ids_of(index.array("tokens")[places]).astype(np.int64)
    following = np.full_like(ids, -1)
    following[:, :-1] = np.where(places[:, 1:] < ends[:, None], ids[:, 1:], -1)
    p = index.next_probabilities(ids, following, estimator=estimator, leave_out="document", positions=begins)
    p = p[following.reshape(-1) >= 0]
    if p.size == 0:
        return float("nan"), 0
    with np.errstate(divide="ignore"):
        return float(-np.log(p).mean()), int(p.size)
