"""Fits that are kept beside their index, in the folder DIR.fits: what takes seconds to fit is fitted once.

Only estimators that are fitted on leave-document-out evidence are kept; the others' fits are as fast as reading a file
would be. A file is named by the estimator and a hash of all its settings, and holds the fingerprint of the index: of an
index that was replaced nothing is used. It is the same kind of file as `Estimator.save` writes. Where the folder can't
be written, nothing is kept and nothing is said. What an unchecked index gives is not kept either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus_index.core.matching import Matcher
from corpus_index.errors import CorpusIndexError
from corpus_index.estimators.estimator import Estimator, load_estimator
from corpus_index.files import write_file
from corpus_index.manifest import read_json

_VERSION = 1
"""Raise it when a fit comes out otherwise than before: kept ones are fitted again then."""


def fits_folder(index: Matcher) -> Path:
    """Where the fits of an index are kept."""
    return index.path.with_name(f"{index.path.name}.fits")


def fit_file(index: Matcher, estimator: Estimator) -> Path | None:
    """The file of an estimator's fit, whether it exists or not; None for one whose fit isn't kept.

    The same for an estimator before its fit and after it, so that one can tell where it came from.
    """
    if estimator.row.fit is None or "strengths" not in estimator.row.parameters:
        return None
    settings = [estimator.name, estimator.max_order, estimator.convention, estimator.alpha, estimator.k]
    return fits_folder(index) / f"{_stem(estimator)}-{_hash(settings)}.json"


def kept_fit(index: Matcher, estimator: Estimator) -> Estimator:
    """An estimator fitted on an index: read if its fit was kept, else fitted and kept.

    Its `facts` are those of the fit, whenever that was.
    """
    path = fit_file(index, estimator)
    if path is None or estimator.is_fitted:
        return estimator.fit(index)
    with contextlib.suppress(CorpusIndexError):
        found = load_estimator(path, index)
        if found.is_fitted and fit_file(index, found) == path:
            return found
    fitted = estimator.fit(index)
    if not index.is_checked:
        return fitted
    with contextlib.suppress(CorpusIndexError, OSError):
        path.parent.mkdir(exist_ok=True)
        fitted.save(path)
    return fitted


def kept_values(index: Matcher, name: str, estimator: Estimator, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was fitted over a fitted estimator, as JSON has it: read if it was kept, else made and kept."""
    settings = [estimator.name, estimator.max_order, estimator.convention, estimator.alpha, estimator.k]
    values = [estimator.discounts, estimator.strengths, estimator.ratios]
    path = fits_folder(index) / f"{name}-{_stem(estimator)}-{_hash([settings, values])}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = read_json(path)
        if content["fingerprint"] == index.fingerprint and content["checksum"] == _checksum(content["values"]):
            return dict(content["values"])
    made = make()
    if not index.is_checked:
        return made
    content = {"fingerprint": index.fingerprint, "values": made, "checksum": _checksum(made)}
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        write_file(path, json.dumps(content).encode())
    return made


def _checksum(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _stem(estimator: Estimator) -> str:
    return f"{estimator.name}-{'any' if estimator.max_order is None else estimator.max_order}"


def _hash(settings: Any) -> str:
    return hashlib.sha256(json.dumps([_VERSION, settings]).encode()).hexdigest()[:8]
