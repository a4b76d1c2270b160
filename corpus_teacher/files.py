"""Files of ours appear whole or not at all, and a folder has one writer at a time.

The ways are those of `corpus_index.files`; here they speak of what was being written, as `OutputError`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import numpy as np
import numpy.typing as npt
from corpus_index import files, manifest

from corpus_teacher.errors import CorpusIndexError, FolderInUseError, OutputError

LOCK_FILE = ".lock"
"""In a folder while a run writes to it; what a killed run left of it holds nobody up."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that takes the name path, whole and on the disk, when the block ends; if it fails, nothing changes.

    Raises
    ------
    OutputError
        No space, no permission, no such folder.
    """
    path = Path(path)
    with _writing(path), files.whole_file(path) as file:
        yield file


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all; a file that stands there is replaced.

    Raises
    ------
    OutputError
    """
    with whole_file(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(
    path: str | os.PathLike[str],
    value: Any,
    *,
    indent: int | None = 1,
    default: Callable[[Any], Any] | None = None,
    ensure_ascii: bool = True,
) -> None:
    """`write_text` of JSON and a line's end; the value is encoded before anything is written."""
    write_text(path, json.dumps(value, indent=indent, default=default, ensure_ascii=ensure_ascii) + "\n")


def write_array(path: str | os.PathLike[str], array: npt.NDArray[Any]) -> None:
    """Write an array in numpy's format, whole or not at all.

    Raises
    ------
    OutputError
    """
    plain = np.asarray(array, order="C")
    header = np.lib.format.header_data_from_array_1_0(plain)
    with whole_file(path) as file:  # not by np.save: its errors don't say that the disk is full
        np.lib.format.write_array_header_1_0(file, header)
        file.write(plain.reshape(-1).view(np.uint8).data)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read; a pipe, a device or a folder is refused without waiting for it.

    Raises
    ------
    OSError
    """
    return os.fdopen(manifest.open_regular(path), "rb")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON of a regular file of bounded size and depth, no key twice in one object.

    Raises
    ------
    OSError, ValueError
    """
    return manifest.read_json(path)


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError
        It is none, or nested too deeply for Python.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a regular TOML file.

    Raises
    ------
    OSError, ValueError
        As `read_json`.
    """
    with open_regular(path) as file:
        text = file.read().decode("utf-8")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_array(path: str | os.PathLike[str], *, mapped: bool = False) -> npt.NDArray[Any]:
    """The array of a regular .npy file.

    Parameters
    ----------
    mapped : bool
        As a read-only map.

    Raises
    ------
    OSError, ValueError
    """
    with open_regular(path) as file:
        if file.read(6) != np.lib.format.MAGIC_PREFIX:  # numpy reads archives and pickles under this name too
            raise ValueError("it doesn't begin as a .npy file does")
    try:
        return np.asanyarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))
    except OSError:
        raise
    except Exception as error:  # of many kinds: a header is parsed as Python, and may promise any size
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(reason) from error


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk, where the system can: after the first write of a file that grows."""
    files.sync_folder(path)


def clear_leftovers(parent: Path, *prefixes: str) -> None:
    """Remove what killed runs left of their `new_folder`s in parent; what a living run is filling is left alone."""
    files.clear_leftovers(parent, *prefixes)


@contextlib.contextmanager
def new_folder(path: Path, prefix: str, *, replace: bool = False) -> Iterator[Path]:
    """A scratch folder beside path, which takes that name, whole and on the disk, when the block ends.

    Parameters
    ----------
    path : Path
    prefix : str
        Of the scratch folder's name, such as ".making-"; what killed runs left under it is removed.
    replace : bool
        Exchange it for a folder that stands at path. The caller answers for it that such a folder is ours.

    Raises
    ------
    OutputError
        It can't be written; or something stands at path, and replace is False.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.scratch_folder(path.parent, prefix) as folder:
            yield folder
            files.sync_tree(folder)
            files.place_folder(folder, path, check=_check_folder if replace else None)


@contextlib.contextmanager
def held_folder(folder: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Make a folder if need be and hold it while the block runs: a second run in it is refused.

    Parameters
    ----------
    folder : path
    what : str
        The work, after "is": "being written by a study".

    Raises
    ------
    FolderInUseError
        Another process holds it.
    OutputError
        It can't be made or written to.

    Notes
    -----
    The lock is the system's, on the file `LOCK_FILE`, and ends with the process, however that ends. On a file system
    without locks nothing is held.
    """
    folder = Path(folder)
    sign = folder / LOCK_FILE
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} can't be made ({error.strerror or error}): name another one") from error
    lock = None
    with _writing(folder):
        try:
            lock = files.lock_file(sign, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            if error.errno not in files.NO_LOCKS:
                raise
        else:
            if lock is None:
                raise FolderInUseError(
                    f"{folder} is {what} already ({_reader_of(sign)}): wait for its end, or name another folder"
                )
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing was written


def _reader_of(sign: Path) -> str:
    try:
        return sign.read_bytes()[:200].decode("utf-8", "replace") or "another process"
    except OSError:
        return "another process"


def _check_folder(path: Path) -> None:
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except CorpusIndexError:
        raise
    except OSError as error:
        way_out = "free some space" if error.errno in _FULL else "name a place that you may write to"
        raise OutputError(f"{path} can't be written ({error.strerror or error}): {way_out}") from error
