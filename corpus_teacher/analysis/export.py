"""The corpus teacher as a file that other programs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpus_index import EstimatorLike, make_estimator, resolve_estimator, working_s, write_arpa
from corpus_index.arpa import check_estimator
from corpus_index.estimators.resolving import names_a_file

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.opening import open_index
from corpus_teacher.errors import ConfigError


@dataclass(frozen=True)
class ArpaAnswer:
    """What `corpus-teacher teacher export-arpa` tells.

    Parameters
    ----------
    path, index : str
        Of the file, and of the index.
    estimator, convention : str
    order : int
        Tokens of the longest n-grams.
    ngrams : list of int
        How many n-grams there are, for n = 1, 2, ….
    discounts : list of [D1, D2, D3+]
        For each n.
    fallback : list of int
        Each n whose counts give no discounts, so that the usual ones stand in for them.
    size_bytes : int
    seconds : float
        Fitting and writing.
    """

    path: str
    index: str
    estimator: str
    convention: str
    order: int
    ngrams: list[int]
    discounts: list[list[float]]
    fallback: list[int]
    size_bytes: int
    seconds: float


def export_arpa(
    path: str | Path,
    out: str | Path,
    *,
    estimator: EstimatorLike = "modified-kneser-ney",
    order: int = 5,
    convention: str = "kenlm",
    overwrite: bool = False,
    progress: Progress = silent,
) -> ArpaAnswer:
    """Fit Kneser–Ney on an index and write it as an ARPA file; see `corpus_index.write_arpa`.

    Parameters
    ----------
    path, out : str or Path
        Of the index, and of the file.
    estimator : str, path, mapping or Estimator
        "modified-kneser-ney", "kneser-ney", or see `corpus_index.resolve_estimator`.
    order : int
        Tokens of the longest n-grams: one more than the estimator's max_order, of one that doesn't have its own.
    convention : {"kenlm", "plain"}
        See `corpus_index.Estimator`; of one that is given by name.

    Raises
    ------
    ConfigError, QueryError, IndexFormatError, IndexExistsError, IndexWriteError
    """
    if order < 1:
        raise ConfigError(f"order {order} is too small: an n-gram has at least 1 token")
    with open_index(path) as index:
        begin = working_s()
        progress("fit", 0, None)
        if isinstance(estimator, str) and not names_a_file(estimator):
            made = make_estimator(estimator, order - 1, convention=convention)
        else:
            made = resolve_estimator(estimator, index, order - 1)
        check_estimator(made)
        fitted = index.fitted(made)
        ngrams = write_arpa(
            index,
            fitted,
            out,
            overwrite=overwrite,
            progress=lambda n, share: progress(f"write {n}-grams", share, 1.0),
        )
        return ArpaAnswer(
            path=str(out),
            index=str(index.path),
            estimator=fitted.name,
            convention=fitted.convention,
            order=len(ngrams),
            ngrams=list(ngrams),
            discounts=[list(three) for three in fitted.discounts],
            fallback=[n + 1 for n in fitted.facts.get("fallback_orders", ())],
            size_bytes=Path(out).stat().st_size,
            seconds=working_s() - begin,
        )
