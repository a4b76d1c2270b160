"""A corpus that is on every machine: Python's own standard library, its code and its English help texts.

Files are split by a hash of their path, so the split depends on nothing else. Text that stands in training
files as well would make the held-out loss a test of copying: a held-out file with more than a few lines of
that sort is left out of both halves.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus_teacher.data import Document
from corpus_teacher.errors import InputError

_SKIPPED_FOLDERS = {
    "__pycache__",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "lib2to3",  # an old grammar and its tests
    "encodings",  # tables of characters
    "ensurepip",  # carries wheels
    "lib-dynload",
}
_HELP_FILE = "pydoc_data/topics.py"  # read as the help texts that it holds
_NUM_BUCKETS = 1 << 16
_LINE_CHARS = 24  # shorter lines are everybody's


@dataclass(frozen=True)
class LibrarySplit:
    """The corpus in two halves that share no document.

    Attributes
    ----------
    train, held_out : list of Document
        Ordered by name.
    too_similar : list of str
        Names of held-out files that were dropped, since too many of their lines stand in training files.
    """

    train: list[Document]
    held_out: list[Document]
    too_similar: list[str]

    @property
    def train_bytes(self) -> int:
        """UTF-8 bytes."""
        return sum(len(document.text.encode()) for document in self.train)

    @property
    def held_out_bytes(self) -> int:
        """UTF-8 bytes."""
        return sum(len(document.text.encode()) for document in self.held_out)


def split_standard_library(
    *,
    held_out_share: float = 0.08,
    max_bytes: int | None = None,
    max_shared: float = 0.1,
    root: str | Path | None = None,
) -> LibrarySplit:
    """Read the standard library of the running Python and split it.

    Parameters
    ----------
    held_out_share : float
        Share of the files that is held out, before the near-duplicates among them go.
    max_bytes : int, optional
        Stop after about so many bytes, the files taken in the order of their hash.
    max_shared : float
        Largest share of the characters of a held-out file (in lines of 24 characters or more) that may stand
        in training files.
    root : path, optional
        The folder of .py files; that of the running Python by default.

    Returns
    -------
    LibrarySplit

    Raises
    ------
    InputError
        No .py files there, or too few to hold any out.
    """
    folder = Path(root or sysconfig.get_path("stdlib"))
    found = read_standard_library(folder)
    train: list[Document] = []
    held_out: list[Document] = []
    size = 0
    for document in found:
        if max_bytes is not None and size >= max_bytes:
            break
        size += len(document.text.encode())
        # the first bits order the files, others split them: the two mustn't depend on each other
        is_held_out = _bucket("held out: " + document.origin) < held_out_share * _NUM_BUCKETS
        (held_out if is_held_out else train).append(document)
    known = set(_long_lines(train))
    similar = {d.origin for d in held_out if _shared_chars(d, known) > max_shared}
    held_out = [document for document in held_out if document.origin not in similar]
    if not held_out or not train:
        raise InputError(f"the standard library at {folder} has only {len(found)} files: too few to split")
    return LibrarySplit(
        train=sorted(train, key=lambda document: document.origin),
        held_out=sorted(held_out, key=lambda document: document.origin),
        too_similar=sorted(similar),
    )


def read_standard_library(root: str | Path | None = None) -> list[Document]:
    """All of the standard library, in the order of a hash of the names; help texts have names that begin with "help/".

    Raises
    ------
    InputError
        No .py files there.
    """
    folder = Path(root or sysconfig.get_path("stdlib"))
    found = sorted([*_code(folder), *_help_texts()], key=lambda document: _bucket(document.origin))
    if not any(document.origin.endswith(".py") for document in found):
        raise InputError(f"the standard library at {folder} holds no .py files: name another folder")
    return found


def _code(folder: Path) -> Iterator[Document]:
    """Every .py file that is UTF-8, has text, and is code that somebody wrote to be used."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith(("test", "config-"))
        ]
        for file in files:
            path = Path(parent, file)
            name = path.relative_to(folder).as_posix()
            if not file.endswith(".py") or name == _HELP_FILE or not path.is_file():
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            if text.strip():
                yield Document(text, name)


def _help_texts() -> Iterator[Document]:
    """What `help()` says about the language, in English."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return
    for name, text in topics.items():
        yield Document(str(text), f"help/{name}")


def _bucket(name: str) -> int:
    """A number from 0 to 65,535 that only the name decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big")


def _long_lines(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        for line in document.text.splitlines():
            stripped = line.strip()
            if len(stripped) >= _LINE_CHARS:
                yield stripped


def _shared_chars(document: Document, known: set[str]) -> float:
    """Share of the characters of the long lines of a document that are in other lines."""
    lines = list(_long_lines([document]))
    total = sum(map(len, lines))
    return sum(len(line) for line in lines if line in known) / total if total else 1.0
