"""The exceptions of the index: one base, one type per thing that the caller can do about it."""

from __future__ import annotations


class CorpusIndexError(Exception):
    """Base of everything that this package raises on purpose; its message is one sentence for a person."""


class CorpusError(CorpusIndexError, ValueError):
    """The corpus can't be indexed: it is empty, a token id is out of range, document starts don't fit."""


class QueryError(CorpusIndexError, ValueError):
    """A query can't be answered: a token id is out of range, a shape or an option is wrong."""


class IndexFormatError(CorpusIndexError):
    """A folder is not an index of ours, is damaged, or was written by a newer version."""


class IndexExistsError(CorpusIndexError, FileExistsError):
    """The target exists already and was not to be overwritten."""


class IndexWriteError(CorpusIndexError, OSError):
    """The index could not be written: no space, no permission."""
