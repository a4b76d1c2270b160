"""Opening what others use: an index for a question, the tokenizer that it was built with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpus_index import CorpusIndex, Estimator, EstimatorLike, fit_file, resolve_estimator
from corpus_index.integrity import Check

from corpus_teacher import storage
from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import TokenizerError


@contextmanager
def open_index(path: str | Path, *, check: Check = "first") -> Iterator[CorpusIndex]:
    """Open an index of either kind, here or at a URL, for a question; see `corpus_teacher.storage.open_index`."""
    with storage.open_index(path, check=check) as index:
        yield index


def check_estimator(index: CorpusIndex, spec: EstimatorLike, max_order: int | None) -> None:
    """Refuse an estimator that there isn't, or that was fitted on another index; nothing is fitted.

    Raises
    ------
    QueryError, IndexFormatError
        As `corpus_index.resolve_estimator`.
    """
    resolve_estimator(spec, index, max_order)


def fitted_estimator(
    index: CorpusIndex, spec: EstimatorLike, max_order: int | None, progress: Progress = silent
) -> Estimator:
    """An estimator, fitted on an index at its first use; a fit that takes long and isn't kept yet is reported.

    Raises
    ------
    QueryError, IndexFormatError
        As `corpus_index.resolve_estimator`.
    """
    made = resolve_estimator(spec, index, max_order)
    kept = None if made.is_fitted else fit_file(index, made)
    if kept is None or kept.is_file():
        return index.fitted(spec, max_order)
    stage = f"fit {made.name}"
    progress(stage, 0, None)
    fitted = index.fitted(spec, max_order)
    progress(stage, 1, 1)
    return fitted


def index_tokenizer(index: CorpusIndex, spec: str | None = None) -> Tokenizer:
    """The tokenizer of an index; one that the user names must be the same.

    Raises
    ------
    TokenizerError
        If the named one differs, or the index has none and none is named.
    """
    described = index.metadata.get("tokenizer")
    if spec is None:
        return load_tokenizer(index)
    named = load_tokenizer(spec)
    if described:
        own = load_tokenizer(index)
        if named.fingerprint not in (described["fingerprint"], own.fingerprint):
            raise TokenizerError(
                f"the tokenizer {spec!r} is not the one that {index.path} was built with "
                f"({described['spec']!r}): "
                "leave `tokenizer` out to use that one"
            )
        return own
    if named.vocab_size > index.vocab_size:
        raise TokenizerError(
            f"the tokenizer {spec!r} has {named.vocab_size:,} ids, the index {index.path} only "
            f"{index.vocab_size:,}: "
            "its tokens were made with another one"
        )
    return named
