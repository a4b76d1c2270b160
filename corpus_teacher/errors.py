"""The exceptions of corpus-teacher: one sentence each, for a person, with the offending value and the way
out.

All of them, and all of the engine's, share the base `corpus_index.errors.CorpusIndexError`, so that one
`except` clause (the command line has just one) catches whatever went wrong on purpose.
"""

from __future__ import annotations

from pathlib import Path

from corpus_index.errors import (
    CorpusError,
    CorpusIndexError,
    IndexExistsError,
    IndexFormatError,
    IndexWriteError,
    InsufficientMemoryError,
    QueryError,
)

__all__ = [
    "CacheError",
    "ConfigError",
    "CorpusError",
    "CorpusIndexError",
    "CorpusTeacherError",
    "EncodingError",
    "FolderInUseError",
    "IndexExistsError",
    "IndexFormatError",
    "IndexWriteError",
    "InputError",
    "InsufficientMemoryError",
    "MissingWindowError",
    "OutputError",
    "QueryError",
    "RemoteError",
    "StudyError",
    "TargetError",
    "TeacherWarning",
    "TokenizerError",
    "TrainingInterrupted",
]


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust gave up: what it raises then is no `Exception`."""
    return type(error).__name__ == "PanicException"


class CorpusTeacherError(CorpusIndexError):
    """Base of everything that `corpus_teacher` raises on purpose."""


class InputError(CorpusTeacherError, ValueError):
    """A source can't be read: it is missing, broken, of an unknown kind, or not UTF-8."""


class EncodingError(InputError):
    """A document is not UTF-8 text."""


class TokenizerError(CorpusTeacherError, ValueError):
    """A tokenizer can't be loaded or trained, or it isn't the one that the index was built with."""


class OutputError(CorpusTeacherError, OSError):
    """A file of ours could not be written: no space, no permission."""


class FolderInUseError(OutputError):
    """Another run is at work in the folder."""


class ConfigError(CorpusTeacherError, ValueError):
    """A setting is out of range or contradicts another one."""


class TargetError(CorpusTeacherError, ValueError):
    """Soft targets, labels and logits don't fit together, or a target is not a distribution."""


class StudyError(CorpusTeacherError, RuntimeError):
    """A study can't go on, though nothing is wrong with its settings: a process was killed."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C in a training, after its checkpoint was written.

    Attributes
    ----------
    step : int
        Steps done.
    checkpoint : Path
        What a resumed training goes on from.
    """

    def __init__(self, step: int, checkpoint: Path) -> None:
        super().__init__(f"interrupted after step {step}: {checkpoint} is saved, resume goes on from it")
        self.step = step
        self.checkpoint = checkpoint


class CacheError(CorpusTeacherError, ValueError):
    """A cache of a neural teacher is damaged, of another teacher, or begun with other settings."""


class MissingWindowError(CacheError, LookupError):
    """A cache of a neural teacher doesn't hold a window that it is asked for."""


class RemoteError(CorpusTeacherError, ConnectionError):
    """A server of indexes can't be reached, fails, or isn't one."""


class TeacherWarning(UserWarning):
    """A teacher can't do all that it was made for, and says so once."""
