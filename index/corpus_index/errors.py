"""The exceptions of the index: one base, one type per thing that the caller can do about it."""

from __future__ import annotations

_MOST_CHARS = 3_000


class CorpusIndexError(Exception):
    """Base of everything that this package raises on purpose; its message is one sentence for a person.

    A value that it shows may be as long as the input: the middle of a message of more than 3,000 characters is left
    out, and lines are joined.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if "\n" in text:  # an array that is shown
            text = " ".join(text.split())
        return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS // 2]} … {text[-_MOST_CHARS // 2 :]}"


class CorpusError(CorpusIndexError, ValueError):
    """The corpus can't be indexed: it is empty, a token id is out of range, document starts don't fit."""


class QueryError(CorpusIndexError, ValueError):
    """A query can't be answered: a token id is out of range, a shape or an option is wrong."""


class IndexFormatError(CorpusIndexError):
    """A folder is not an index of ours, is damaged, or was written by a newer version."""


class IndexExistsError(CorpusIndexError, FileExistsError):
    """The target exists already and was not to be overwritten."""


class InsufficientMemoryError(CorpusIndexError, MemoryError):
    """What is asked for needs more memory than this process may use."""


class IndexWriteError(CorpusIndexError, OSError):
    """The index could not be written: no space, no permission."""
