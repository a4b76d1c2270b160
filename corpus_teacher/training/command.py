"""What `corpus-teacher train` does: a training in its folder, from its settings to the finished student.

A folder of a training holds run.json (written when the first step begins), checkpoints, student/ and, written last,
result.json: a training with a result is finished. One process works in a folder at a time.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

import corpus_teacher
from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.errors import ConfigError, OutputError
from corpus_teacher.files import held_folder, read_json, write_json
from corpus_teacher.training.assemble import Opened, Parts, open_training
from corpus_teacher.training.checkpoints import checkpoints_in
from corpus_teacher.training.model_folder import Card, save_student
from corpus_teacher.training.run import TrainingResult, is_main_process, train_here, warn
from corpus_teacher.training.settings import RunSettings

RUN_FILE, RESULT_FILE, STUDENT_FOLDER = "run.json", "result.json", "student"
"""What a training leaves in its folder, beside the checkpoints."""


def run_training(
    settings: RunSettings,
    *,
    resume: bool = False,
    reading: Progress = silent,
    progress: Callable[[int, float | None], None] | None = None,
    callbacks: list[transformers.TrainerCallback] | None = None,
    notices: Callable[[str], None] = warn,
) -> TrainingResult:
    """Train what the settings say.

    Parameters
    ----------
    settings : RunSettings
        Of `read_run` or `make_run`.
    resume : bool
        Go on with the training in the folder: from its newest whole checkpoint, from the beginning where there is none
        yet; of a finished one the result is given.
    reading : callable, optional
        Called with how far texts are read.
    progress, callbacks, notices
        As in `train_student`.

    Returns
    -------
    TrainingResult
        Also written to ``out/result.json``; ``out/run.json`` has the resolved settings, versions and identities of the
        teachers, ``out/student`` the student as a whole model folder.

    Raises
    ------
    ConfigError
        A folder that holds another training, settings that have changed since a run was begun, a damaged checkpoint.
    FolderInUseError
        Another process trains in the folder.
    TrainingInterrupted
        Ctrl-C; a checkpoint has been written.
    InputError, TokenizerError, IndexFormatError, CacheError, OutputError
        Texts, indexes, models and folders that can't be used.
    """
    with open_training(settings) as opened:
        return run_opened(
            opened, resume=resume, reading=reading, progress=progress, callbacks=callbacks, notices=notices
        )


def run_opened(
    opened: Opened,
    *,
    resume: bool = False,
    reading: Progress = silent,
    progress: Callable[[int, float | None], None] | None = None,
    callbacks: list[transformers.TrainerCallback] | None = None,
    notices: Callable[[str], None] = warn,
) -> TrainingResult:
    """`run_training` of a training whose tables are open."""
    settings = opened.settings
    out, main = Path(settings.out), is_main_process()
    with ExitStack() as stack:
        if main:
            if not out.exists():
                stack.callback(_remove_if_empty, out)
            stack.enter_context(held_folder(out, "being trained in"))
        begun, result = _look_at(out, settings, resume)
        if result is not None:
            notices(f"the training in {out} is finished: nothing was done")
            return result
        parts = opened.make(reading)
        described = describe(settings, parts)
        _check_identities(out, begun, described)
        began = time.perf_counter()
        result = train_here(
            settings.config(len(parts.train)),
            parts.student,
            parts.train,
            parts.held_out,
            teachers=parts.teachers,
            on_policy=settings.on_policy,
            held_out_bytes=parts.held_out_bytes,
            form=settings.corpus.form if settings.corpus else "flat",
            resume=resume,
            progress=progress,
            callbacks=callbacks,
            notices=notices,
            begin=lambda: write_json(out / RUN_FILE, described, default=str),
        )
        if main:
            told = {**asdict(result), "total_s": time.perf_counter() - began}
            if (
                settings.quantization is None
            ):  # else its weights are those of the training; `convert` makes the small ones
                card = Card(described, told)
                save_student(parts.student, out / STUDENT_FOLDER, parts.index, parts.tokenizer, _source(settings), card)
            write_json(out / RESULT_FILE, told, default=str)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # for every process the training is finished when its result is there
        return result


def describe(settings: RunSettings, parts: Parts) -> dict[str, Any]:
    """The resolved settings, and everything that they don't say."""
    return {
        "settings": settings.to_dict(),
        "seed": settings.seed,
        "student_parameters": parts.student.num_parameters(),
        "train_windows": len(parts.train),
        "held_out_windows": len(parts.held_out),
        "index_fingerprint": parts.index.fingerprint,
        "teachers": parts.teachers.describe(),
        "versions": {
            "corpus-teacher": corpus_teacher.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy", "numba")},
        },
        "system": platform.platform(),
    }


def _source(settings: RunSettings) -> Path | None:
    """The folder of the model that the student went on from."""
    return Path(settings.student["checkpoint"]) if "checkpoint" in settings.student else None


def _look_at(out: Path, settings: RunSettings, resume: bool) -> tuple[dict[str, Any] | None, TrainingResult | None]:
    """What the training in a folder was begun with, and its result, if it is finished; refuses one that isn't to be
    gone on with.

    A training that has left neither a checkpoint nor a result has nothing to lose: it begins anew, with whatever
    settings.
    """
    begun, result = _read(out / RUN_FILE), _read(out / RESULT_FILE)
    if begun is None or (result is None and not checkpoints_in(out)):
        return None, None
    if not resume:
        raise ConfigError(f"{out} holds a training already: resume it, or choose another out")
    now = json.loads(json.dumps(settings.to_dict(), default=str))
    changed = [
        key for key in sorted(now.keys() | begun["settings"].keys()) if now.get(key) != begun["settings"].get(key)
    ]
    if changed:
        raise ConfigError(f"{changed[0]} isn't what the training in {out} was begun with: choose another out")
    if result is None:
        return begun, None
    return begun, TrainingResult(**{one.name: result[one.name] for one in fields(TrainingResult)})


def _check_identities(out: Path, begun: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Refuse to go on with an index or a model that stands at the same place and is another one."""
    if begun is None:
        return
    before = {"data.index": begun.get("index_fingerprint"), **_identities(begun)}
    for name, fingerprint in {"data.index": now["index_fingerprint"], **_identities(now)}.items():
        if before.get(name) not in (None, fingerprint):
            raise ConfigError(
                f"{name} has other contents than when the training in {out} was begun: put them back, or choose "
                "another out"
            )


def _identities(described: dict[str, Any]) -> dict[str, Any]:
    """Fingerprints of what the teachers of a training are made of; that of an average is its student's."""
    return {
        f"the {name} teacher": one.get("index_fingerprint") or one.get("model_fingerprint")
        for name, one in described["teachers"].items()
        if name != "self"
    }


def _read(path: Path) -> dict[str, Any] | None:
    """A file of ours, if it is there."""
    try:
        told = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: choose another out") from error
    if not isinstance(told, dict):
        raise ConfigError(f"{path} isn't a file of a training: choose another out")
    return told


def _remove_if_empty(folder: Path) -> None:
    """Nothing is left of a training that failed before it began."""
    with suppress(OSError):
        folder.rmdir()
