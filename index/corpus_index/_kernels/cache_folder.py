"""Where compiled kernels are kept, when they are out of date, and who compiles when several processes want one.

The folder is the first of these that can be written: NUMBA_CACHE_DIR where it is set, `__pycache__` beside the kernels,
the user's cache folder, and one of this user's in the folder for temporary files. Cached code is unpickled, so the last
counts only if nobody else may write to it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from numba import config

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger("corpus_index")
_LOCKS = ".kernels.lock"


_OF_ALL = ("arrays", "cache_folder", "front_end", "jit")
"""What every kernel is compiled by."""

_IMPORT = re.compile(rf"^ *from {re.escape(__package__)}\.(\w+) import", re.MULTILINE)


class _Source(NamedTuple):
    """A module of this package: SHA-256 of its source, and the modules that it imports here."""

    digest: bytes
    imports: list[str]


@cache
def _sources() -> dict[str, _Source]:
    """Every module of this package."""
    found = {}
    for file in resources.files(__package__).iterdir():
        if file.name.endswith(".py"):
            text = file.read_text(encoding="utf-8")
            found[file.name[:-3]] = _Source(hashlib.sha256(text.encode()).digest(), _IMPORT.findall(text))
    return found


def read_by(module: str) -> set[str]:
    """A module of kernels, what it imports here, what that imports, and what every kernel is compiled by."""
    known, waiting = set[str](), [module, *_OF_ALL]
    while waiting:
        name = waiting.pop()
        if name not in known and name in _sources():
            known.add(name)
            waiting += _sources()[name].imports
    return known


@cache
def stamp_of(module: str, file: str) -> bytes:
    """SHA-256 of the sources that a module's kernels are made of: compiled code of others is out of date.

    Of a module elsewhere (a test's, a benchmark's): its file and all sources of this package.
    """
    package, _, name = module.rpartition(".")
    digest = hashlib.sha256()
    if package != __package__:
        with suppress(OSError):
            digest.update(Path(file).read_bytes())
    for each in sorted(read_by(name) if package == __package__ else _sources()):
        digest.update(each.encode() + b"\0" + _sources()[each].digest)
    return digest.digest()


@cache
def cache_folder() -> Path:
    """The folder of compiled kernels, made and tried at the first use."""
    here = Path(__file__).resolve().parent
    of_package = f"{here.name}_{hashlib.sha256(str(here).encode()).hexdigest()[:16]}"
    chosen = getattr(config, "CACHE_DIR", "")
    wanted = Path(chosen) / of_package if chosen else None
    candidates = [] if wanted is None else [wanted]
    candidates.append(here / "__pycache__")
    with suppress(RuntimeError):  # no home
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        candidates.append(Path(base) / "corpus-index" / of_package)
    for folder in candidates:
        if _is_writable(folder):
            if wanted not in (None, folder):
                _LOG.warning("NUMBA_CACHE_DIR %s can't be written: compiled kernels go to %s.", wanted, folder)
            return folder
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(tempfile.gettempdir()) / f"corpus-index-kernels-{user}" / of_package
    if not (_is_private(folder.parent) and _is_writable(folder)):
        folder = Path(tempfile.mkdtemp(prefix="corpus-index-kernels-"))
    _LOG.warning(
        "None of %s can be written: compiled kernels go to %s. Set NUMBA_CACHE_DIR to a folder that lasts.",
        ", ".join(map(str, candidates)),
        folder,
    )
    return folder


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _is_private(folder: Path) -> bool:
    """Make a folder that only this user may write to; whether it is one."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return True
    return folder.is_dir() and not folder.is_symlink() and found.st_uid == os.getuid() and not found.st_mode & 0o022


class _Locator:
    """Tells numba where a function's code is kept: all kernels' in one folder."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno
        self._stamp = stamp_of(function.__module__, function.__code__.co_filename)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)

    def ensure_cache_path(self) -> None:
        cache_folder().mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> bytes:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._line)


def locator_classes() -> list[type]:
    """What numba's cache asks for a folder."""
    return [_Locator]


_lock_file: list[int] = []


@contextmanager
def kernel_lock(name: str) -> Iterator[None]:
    """Hold a kernel's lock, so that one process of all that share the cache compiles it; others wait here.

    A byte of one file for each name. The lock ends with its process. Where the file system has no locks, or a process
    that holds this one waits for another of ours, go on without: then two compile the same.
    """
    place = None
    if fcntl is not None:
        place = zlib.crc32(name.encode()) & 0x3FFFFFFF
        try:
            if not _lock_file:
                _lock_file.append(os.open(cache_folder() / _LOCKS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            fcntl.lockf(_lock_file[0], fcntl.LOCK_EX, 1, place)
        except OSError:
            place = None
    try:
        yield
    finally:
        if place is not None:
            with suppress(OSError):
                fcntl.lockf(_lock_file[0], fcntl.LOCK_UN, 1, place)
