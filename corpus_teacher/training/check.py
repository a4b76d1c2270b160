"""Whether all is there that a training's file names, and goes together: looked at before anything is read.

No text is read and no weights are made or loaded: indexes and caches are opened, sources are looked up, and a student
of random weights is made on torch's "meta" device, which tells what its configuration can't be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from corpus_teacher.data.opening import check_estimator, index_tokenizer, open_index
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, CorpusIndexError, InputError
from corpus_teacher.neural import CachedTeacher
from corpus_teacher.neural.pretrained import check_model
from corpus_teacher.quantization import check_torchao
from corpus_teacher.training.settings import NeuralSettings, RunSettings
from corpus_teacher.training.student import make_student


def check_places(settings: RunSettings) -> None:
    """Look whether all is there that the settings name, and goes together.

    Raises
    ------
    ConfigError, InputError, IndexFormatError, QueryError, TokenizerError, CacheError
        What isn't there or doesn't fit, by the table that names it.
    """
    data = settings.data
    with ExitStack() as opened:
        with _within("data.index"):
            index = opened.enter_context(open_index(data.index))
            tokenizer = index_tokenizer(index) if index.metadata.get("tokenizer") else None
        for name in ("train", "held_out"):
            sources = list(getattr(data, name))
            if sources:
                with _within(f"data.{name}"):
                    find_sources(sources)
        with _within("student"):
            _check_student(settings, index.vocab_size)
        if settings.corpus is not None:
            with _within("corpus"):
                own = index
                if settings.corpus.index is not None:
                    own = opened.enter_context(open_index(settings.corpus.index))
                    check_same_tokens(own, index)
                check_estimator(own, settings.corpus.estimator, settings.corpus.max_order)
        if settings.neural is not None:
            with _within("neural"):
                _check_neural(settings.neural, index.vocab_size, tokenizer)
        if settings.self_ is not None and settings.self_.checkpoint is not None:
            with _within("self"):
                _check_model_folder(settings.self_.checkpoint)
        if settings.quantization is not None:
            with _within("quantization"):
                check_torchao()


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Say which table of the file an error is about."""
    try:
        yield
    except CorpusIndexError as error:
        raise type(error)(f"{where}: {error}") from error


def _check_student(settings: RunSettings, vocab_size: int) -> None:
    """Make the student without its weights, or look for the folder that it goes on from."""
    if "checkpoint" in settings.student:
        _check_model_folder(settings.student["checkpoint"])
        return
    with torch.device("meta"):
        student = make_student(settings.student, vocab_size=vocab_size)
    check_length(student, settings.data.length)


def check_length(student: transformers.PreTrainedModel, length: int) -> None:
    """Refuse windows that are longer than the student reads."""
    longest = getattr(student.config, "max_position_embeddings", None) or length
    if length > longest:
        raise ConfigError(
            f"data.length is {length} and the student reads at most {longest} tokens: "
            "shorten the windows, or raise max_position_embeddings"
        )


def _check_model_folder(path: str) -> None:
    if not (Path(path) / "config.json").is_file():
        raise InputError(f"{path!r} is no folder with a model of transformers (config.json): name one")


def _check_neural(said: NeuralSettings, vocab_size: int, tokenizer: Tokenizer | None) -> None:
    if said.cache is not None:
        CachedTeacher(said.cache, vocab_size=vocab_size, student_tokenizer=tokenizer, k=said.k, missing=said.missing)
    else:
        check_model(str(said.model))


def check_same_tokens(other: Any, index: Any) -> None:
    """Refuse a larger index with another vocabulary or tokenizer."""
    if other.vocab_size != index.vocab_size:
        raise ConfigError(
            f"corpus.index has {other.vocab_size} tokens and data.index {index.vocab_size}: "
            "build both with one tokenizer"
        )
    ours, theirs = (one.metadata.get("tokenizer") or {} for one in (index, other))
    if ours.get("fingerprint") != theirs.get("fingerprint"):
        raise ConfigError("corpus.index and data.index have different tokenizers: build both with one")
