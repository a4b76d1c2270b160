"""From the settings of a training to its parts, and through it: what `corpus-teacher train` does."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

import corpus_teacher
from corpus_teacher.data import TokenWindows
from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.held_out import HeldOut, read_held_out
from corpus_teacher.data.opening import index_tokenizer, open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, OutputError
from corpus_teacher.neural import CachedTeacher, EmaTeacher, NeuralTeacher, TargetFormat
from corpus_teacher.neural.pretrained import quiet
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.teaching import Teacher, Teachers
from corpus_teacher.training.check import check_length, check_places, check_same_tokens
from corpus_teacher.training.run import TrainingResult, train_student
from corpus_teacher.training.settings import CorpusSettings, NeuralSettings, RunSettings, SelfSettings
from corpus_teacher.training.student import load_student, make_student

RUN_FILE, RESULT_FILE, STUDENT_FOLDER = "run.json", "result.json", "student"
"""What a training leaves in its folder, beside the checkpoints."""


@dataclass(frozen=True)
class Parts:
    """All that a training is made of.

    Attributes
    ----------
    student : PreTrainedModel
    train, held_out : TokenWindows
    held_out_bytes : int or None
        UTF-8 bytes of the tokens that the held-out windows predict: those of the text in proportion to the tokens.
    teachers : Teachers
    tokenizer : Tokenizer or None
    """

    student: transformers.PreTrainedModel
    train: TokenWindows
    held_out: TokenWindows
    held_out_bytes: int | None
    teachers: Teachers
    tokenizer: Tokenizer | None


def run_training(
    settings: RunSettings,
    *,
    resume: bool = False,
    reading: Progress = silent,
    progress: Callable[[int, float | None], None] | None = None,
    callbacks: list[transformers.TrainerCallback] | None = None,
) -> TrainingResult:
    """Train what the settings say.

    Parameters
    ----------
    settings : RunSettings
        Of `read_run` or `make_run`.
    resume : bool
        Go on from the last checkpoint in the folder.
    reading : callable, optional
        Told how far texts are read.
    progress, callbacks
        As in `train_student`.

    Returns
    -------
    TrainingResult
        Also written to ``out/result.json``; ``out/run.json`` has the resolved settings, versions and identities of the
        teachers, ``out/student`` the student and its tokenizer.

    Raises
    ------
    ConfigError
        A folder that holds another training, settings that have changed since a run was begun.
    TrainingInterrupted
        Ctrl-C; a checkpoint has been written.
    InputError, TokenizerError, IndexFormatError, CacheError, OutputError
        Texts, indexes, models and folders that can't be used.
    """
    out = Path(settings.out)
    check_places(settings)
    if is_main_process():
        _check_folder(out, settings, resume)
    with assembled(settings, reading) as parts:
        if is_main_process():
            _write(out / RUN_FILE, _described(settings, parts))
        form = settings.corpus.form if settings.corpus else "flat"
        began = time.perf_counter()
        result = train_student(
            settings.config(),
            parts.student,
            parts.train,
            parts.held_out,
            teachers=parts.teachers,
            on_policy=settings.on_policy,
            held_out_bytes=parts.held_out_bytes,
            form=form,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
        )
        if is_main_process():
            _write(out / RESULT_FILE, {**asdict(result), "total_s": time.perf_counter() - began})
            _save(parts, settings, out / STUDENT_FOLDER)
        return result


def is_main_process() -> bool:
    """Whether this is the process that writes and prints: the first of torchrun's, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def assembled(settings: RunSettings, reading: Progress = silent) -> Iterator[Parts]:
    """Make all parts of a training; the indexes are closed at the end."""
    data = settings.data
    with open_index(data.index) as index:
        tokenizer = index_tokenizer(index) if index.metadata.get("tokenizer") else None
        options: dict[str, Any] = {
            "read": ReadOptions(text_field=data.text_field),
            "dtype": data.token_dtype,
            "progress": reading,
        }
        held_out = read_held_out(index, list(data.held_out), tokenizer, limit=data.held_out_tokens, **options)
        tokens, starts = index.tokens, index.doc_starts
        if data.train:
            corpus = read_held_out(index, list(data.train), tokenizer, **options).corpus
            tokens, starts = corpus.tokens, corpus.doc_starts
        limit = None if data.train_tokens is None else data.train_tokens // data.length
        train = TokenWindows(tokens, data.length, seed=settings.seed, doc_starts=starts, limit=limit)
        windows = TokenWindows(
            held_out.corpus.tokens, data.length, doc_starts=held_out.corpus.doc_starts, shuffle=False
        )
        student = _student(settings, index.vocab_size)
        teacher = None if settings.corpus is None else _corpus_teacher(settings.corpus, settings, index)
        yield Parts(
            student=student,
            train=train,
            held_out=windows,
            held_out_bytes=_predicted_bytes(held_out, windows),
            teachers=Teachers(
                teacher,
                None if settings.neural is None else _neural_teacher(settings.neural, index, tokenizer),
                None if settings.self_ is None else _self_teacher(settings.self_, student, index.vocab_size),
            ),
            tokenizer=tokenizer,
        )
        if teacher is not None and teacher.index is not index:
            teacher.index.close()


def _student(settings: RunSettings, vocab_size: int) -> transformers.PreTrainedModel:
    if "checkpoint" in settings.student:
        student = load_student(settings.student["checkpoint"], vocab_size=vocab_size)
    else:
        student = make_student(settings.student, vocab_size=vocab_size, seed=settings.seed)
    check_length(student, settings.data.length)
    if settings.quantization is not None:
        from corpus_teacher.quantization import fake_quantize

        fake_quantize(student, **asdict(settings.quantization))
    return student


def _corpus_teacher(said: CorpusSettings, settings: RunSettings, index: Any) -> CorpusTeacher:
    other = said.index is not None and Path(said.index).resolve() != Path(settings.data.index).resolve()
    options = {name: getattr(said, name) for name in ("estimator", "max_order", "top_k", "top_p")}
    if said.leave_out is not None:
        options["leave_out"] = None if said.leave_out == "none" else said.leave_out
    teacher = CorpusTeacher(said.index if other and said.index is not None else index, **options)
    if other:
        check_same_tokens(teacher.index, index)
        if said.leave_out is None:
            raise ConfigError(
                "corpus.leave_out isn't given and corpus.index is another index than data.index: say 'self' if the "
                "training text is in it too, 'none' if it isn't"
            )
    return teacher


def _neural_teacher(said: NeuralSettings, index: Any, tokenizer: Tokenizer | None) -> Teacher:
    if said.cache is not None:
        return CachedTeacher(
            said.cache, vocab_size=index.vocab_size, student_tokenizer=tokenizer, k=said.k, missing=said.missing
        )
    kept = TargetFormat(said.keep, k=said.k or 64, p=said.p, draws=said.draws, precision=said.precision)
    dtype = None if said.dtype is None else getattr(torch, said.dtype)
    return NeuralTeacher(
        str(said.model),
        vocab_size=index.vocab_size,
        student_tokenizer=tokenizer,
        kept=kept,
        rows=said.rows,
        dtype=dtype,
    )


def _self_teacher(said: SelfSettings, student: transformers.PreTrainedModel, vocab_size: int) -> Teacher:
    if said.checkpoint is not None:
        return NeuralTeacher(load_student(said.checkpoint, vocab_size=vocab_size), kept=TargetFormat("all"))
    return EmaTeacher(student, decay=said.decay, warm_up=said.warm_up, kept=TargetFormat("all"))


def _predicted_bytes(held_out: HeldOut, windows: TokenWindows) -> int | None:
    """Bytes of the predicted tokens: those of the text in proportion; None where they are unknown."""
    if not held_out.corpus.num_bytes:
        return None
    predicted = len(windows) * (windows.length - 1)
    return round(held_out.corpus.num_bytes * predicted / len(held_out.corpus.tokens))


def _described(settings: RunSettings, parts: Parts) -> dict[str, Any]:
    """The resolved settings, and everything that they don't say."""
    packages = ("torch", "transformers", "tokenizers", "numpy", "numba")
    return {
        "settings": settings.to_dict(),
        "seed": settings.seed,
        "student_parameters": parts.student.num_parameters(),
        "train_windows": len(parts.train),
        "held_out_windows": len(parts.held_out),
        "teachers": parts.teachers.describe(),
        "versions": {
            "corpus-teacher": corpus_teacher.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "system": platform.platform(),
    }


def _check_folder(out: Path, settings: RunSettings, resume: bool) -> None:
    """Refuse a folder with another training, or with other settings than the training that is resumed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        begun = json.loads((out / RUN_FILE).read_text(encoding="utf-8")) if (out / RUN_FILE).is_file() else None
    except OSError as error:
        raise OutputError(f"the folder {out} can't be made: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{out / RUN_FILE} is no JSON: choose another out") from error
    if begun is None:
        if resume:
            raise ConfigError(f"{out} holds no training to resume: train without --resume")
        return
    if not resume:
        raise ConfigError(f"{out} holds a training already: give --resume to go on with it, or choose another out")
    now = json.loads(json.dumps(settings.to_dict(), default=str))
    changed = [
        key for key in sorted(now.keys() | begun["settings"].keys()) if now.get(key) != begun["settings"].get(key)
    ]
    if changed:
        raise ConfigError(f"{changed[0]} isn't what the training in {out} was begun with: choose another out")


def _write(path: Path, answer: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(answer, indent=1, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error}") from error


def _save(parts: Parts, settings: RunSettings, folder: Path) -> None:
    """The finished student, as transformers loads it, with its tokenizer."""
    if settings.quantization is not None:
        return  # its weights are those of the training; corpus_teacher.quantization.convert makes the small ones
    try:
        with quiet():
            parts.student.save_pretrained(folder)
        if parts.tokenizer is not None:
            (folder / "tokenizer.json").write_bytes(parts.tokenizer.to_bytes())
    except OSError as error:
        raise OutputError(f"the student can't be saved to {folder}: {error.strerror or error}") from error
