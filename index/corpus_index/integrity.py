"""Whether the files of an index are those that were built: found out once on a machine, and remembered outside of them.

Naively: compare every file with its checksum at every opening. Here the first opening does, block by block and in
parallel, and leaves a stamp in the user's cache folder, a file named by what tells these files from others (device,
inode, size and times of change of each). Later openings look for that name only. Who writes an index leaves the stamp
too: the checksums are of what was written. They are CRC-32 of blocks, some GB/s and core, and SHA-256 of whole files in
indexes that were built before there were such.

A stamp says that the files are as they were when they were checked; a disk or a memory that loses a bit later changes
no time of a file: `check="always"`, and `verify`, read them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from corpus_index import files
from corpus_index.addresses import check_addresses
from corpus_index.errors import IndexFormatError, QueryError
from corpus_index.manifest import SUMMED_BYTES, file_names

Check = Literal["always", "first", "never"]

VARIABLE = "CORPUS_TEACHER_CHECK"
"""Of the environment: what is done in place of "first", in this process and those that it starts."""

_SMALL_BYTES = 1 << 20  # an index that is checked sooner than its stamp is found
_SLOW_BYTES = 1 << 33  # whoever opens more is told what takes so long
_BUFFER_BYTES = 1 << 20
_MOST_THREADS = 8
_MOST_STAMPS = 1_000
_LOG = logging.getLogger("corpus_index")

_checked: set[str] = set()
"""Names of stamps of what this process, or the one that it was started by, has checked."""


def checked_name(fingerprint: str, statuses: Mapping[str, os.stat_result]) -> str:
    """What the stamp of these files is called: a hash of what tells them from others, hex."""
    told = {name: (*files.stamp_of(status), status.st_ctime_ns) for name, status in statuses.items()}
    return hashlib.sha256(json.dumps([fingerprint, told], sort_keys=True).encode()).hexdigest()[:40]


def believe(name: str) -> None:
    """Take the files of a stamp's name as checked, in this process."""
    _checked.add(name)


def remember(path: Path, fingerprint: str, statuses: Mapping[str, os.stat_result]) -> None:
    """Take files as checked, for every process of this user, that this one has just written and hashed.

    Parameters
    ----------
    path : Path
        The index.
    fingerprint : str
    statuses : mapping of file name to os.stat_result
        Of each file, taken when it was complete: who changes one afterwards gives it another name here.
    """
    if sum(status.st_size for status in statuses.values()) < _SMALL_BYTES:  # compared each time
        return
    name, folder = checked_name(fingerprint, statuses), _folder()
    believe(name)
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    _leave_stamp(folder, name, path)


def check_option(check: str) -> str:
    """When to check: the word itself; in place of "first", what the environment says (`VARIABLE`).

    Raises
    ------
    QueryError
        Another word than "always", "first" and "never".
    """
    said, name = (
        (check, "check")
        if not isinstance(check, str) or check != "first"
        else (os.environ.get(VARIABLE) or check, VARIABLE)
    )
    if not isinstance(said, str) or said not in get_args(Check):
        raise QueryError(f"{name} is {said!r}: give 'always', 'first' (once on this machine) or 'never'")
    return said


def check_opened(
    path: Path,
    manifest: Mapping[str, Any],
    descriptors: Mapping[str, int],
    arrays: Mapping[str, np.ndarray],
    check: str,
) -> str:
    """Check opened files as asked for, and the arrays of places where they weren't checked before.

    Returns
    -------
    str
        The name that the check is remembered by; "" of files that weren't compared.

    Raises
    ------
    IndexFormatError
        Naming the file that differs, or what leads astray.
    """
    name = checked_name(manifest["fingerprint"], {file: os.fstat(opened) for file, opened in descriptors.items()})
    total = sum(entry["bytes"] for _, entry in file_names(manifest))
    if total < _SMALL_BYTES or check == "always":
        if check != "never":
            compare(path, manifest, descriptors)
        check_addresses(path, manifest, arrays)
        return name if check != "never" else ""
    if _is_checked(name):
        return name
    if check == "never":
        check_addresses(path, manifest, arrays)
        return ""
    folder = _folder()
    with _turn(folder, name):
        if not _is_checked(name):  # by another process, meanwhile
            if total > _SLOW_BYTES:
                _LOG.warning("Checking %s, %.0f GB, once on this machine.", path, total / 1e9)
            compare(path, manifest, descriptors)
            check_addresses(path, manifest, arrays)
            believe(name)
            _leave_stamp(folder, name, path)
    return name


def compare(path: Path, manifest: Mapping[str, Any], descriptors: Mapping[str, int]) -> None:
    """Compare opened files with their checksums, in parallel.

    Raises
    ------
    IndexFormatError
        Naming the first file that differs.
    """
    jobs: list[tuple[str, Callable[[], bool]]] = []
    for name, entry in file_names(manifest):
        jobs += _jobs(name, descriptors[name], entry)
    total = sum(entry["bytes"] for _, entry in file_names(manifest))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        results: Iterator[bool] = map(_run, (job for _, job in jobs))
        if total > _SMALL_BYTES and cores > 1:
            pool = ThreadPoolExecutor(min(_MOST_THREADS, cores))
            stack.callback(pool.shutdown, cancel_futures=True)
            results = pool.map(_run, (job for _, job in jobs))
        for name, _ in jobs:
            try:
                same = next(results)
            except OSError as error:
                raise IndexFormatError(
                    f"{path / name} can't be read ({error.strerror or error}): copy the index again, or build it again"
                ) from error
            if not same:
                raise IndexFormatError(f"{path / name} was changed after it was written: build the index again")


def _run(job: Callable[[], bool]) -> bool:
    return job()


def _jobs(name: str, descriptor: int, entry: Mapping[str, Any]) -> list[tuple[str, Callable[[], bool]]]:
    """The comparisons of one file: its blocks', or its SHA-256's where it has no others."""
    sums, size = entry.get("crc32"), entry["bytes"]
    if sums is None or not hasattr(os, "preadv"):
        return [(name, lambda: sha256_of(descriptor) == entry["sha256"])]

    def block(begin: int, expected: int) -> Callable[[], bool]:
        return lambda: _crc32_of(descriptor, begin, min(begin + SUMMED_BYTES, size)) == expected

    return [(name, block(k * SUMMED_BYTES, int(sums[8 * k : 8 * k + 8], 16))) for k in range(len(sums) // 8)]


def _crc32_of(descriptor: int, begin: int, end: int) -> int:
    """The CRC-32 of a part of a file; −1 where it is shorter."""
    buffer, value = memoryview(bytearray(min(_BUFFER_BYTES, end - begin))), 0
    while begin < end:
        count = os.preadv(descriptor, [buffer[: end - begin]], begin)
        if count == 0:
            return -1
        value = zlib.crc32(buffer[:count], value)
        begin += count
    return value


def sha256_of(descriptor: int) -> str:
    """SHA-256 (hex) of an open file, wherever it was read to."""
    digest = hashlib.sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, 1 << 24):
        digest.update(chunk)
    return digest.hexdigest()


class BlockSums:
    """The CRC-32 of each block of a file that is written in pieces; pieces mustn't cross a block's end."""

    def __init__(self) -> None:
        self._sums: list[int] = []
        self._size = 0

    def update(self, piece: memoryview) -> None:
        """The next piece."""
        if self._size % SUMMED_BYTES == 0:
            self._sums.append(0)
        self._sums[-1] = zlib.crc32(piece, self._sums[-1])
        self._size += piece.nbytes

    def hexdigest(self) -> str:
        """Eight digits for each block."""
        return "".join(f"{value:08x}" for value in self._sums)


# stamps


def _folder() -> Path | None:
    """Where stamps are; None where this user has no such folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corpus-index" / "checked"
    except RuntimeError:  # no home
        return None


def _is_checked(name: str) -> bool:
    if name in _checked:
        return True
    folder = _folder()
    if folder is not None:
        with contextlib.suppress(OSError):
            os.stat(folder / name)
            believe(name)
    return name in _checked


def _leave_stamp(folder: Path | None, name: str, path: Path) -> None:
    if folder is None:
        return
    with contextlib.suppress(OSError):  # then the next process checks again
        files.write_file(folder / name, f"{path} {time.strftime('%Y-%m-%d')}\n".encode())
        stamps = sorted(folder.glob("[0-9a-f]*"), key=lambda file: file.stat().st_mtime)
        for old in stamps[:-_MOST_STAMPS]:
            old.unlink(missing_ok=True)


@contextlib.contextmanager
def _turn(folder: Path | None, name: str) -> Iterator[None]:
    """While one process checks these files, others wait here; on without, where that can't be."""
    lock = place = None
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            place = folder / f".{name}.checking"
            place.touch()
            lock = files.try_lock(place, wait=True)
    try:
        yield
    finally:
        if lock is not None and place is not None:
            with contextlib.suppress(OSError):
                place.unlink()
            lock.release()
