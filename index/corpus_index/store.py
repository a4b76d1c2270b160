"""An index on disk: a folder of flat little-endian arrays and a manifest that describes and seals them.

A folder is written beside its final place under another name and takes the place when it is whole and on the disk: a
build that is killed leaves nothing that opens, and an index that is replaced is exchanged in one step. Only a folder
that is an index by its own word is ever replaced, and only the files that it names are removed. A reader opens all
files at once, from one folder, and keeps them. index/README.md specifies the format byte by byte.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from corpus_index import files, integrity
from corpus_index.errors import CorpusIndexError, IndexExistsError, IndexFormatError, IndexWriteError
from corpus_index.manifest import (
    DEEPEST,
    DERIVED_FILES,
    FORMAT,
    MANIFEST,
    check_manifest,
    file_names,
    is_plain_name,
    load_manifest,
    open_regular,
    read_json,
    seal,
    version_of,
)
from corpus_index.shard_manifest import (
    SHARDS_FORMAT,
    entries_of,
    format_of,
    is_mask_name,
    is_shard_name,
    load_shards_manifest,
    refuse_inside,
)

__all__ = [
    "DEEPEST",
    "MANIFEST",
    "IndexWriter",
    "OpenFile",
    "OpenFiles",
    "array_of",
    "check_target",
    "file_sha256",
    "index_writer",
    "map_file",
    "placed_folder",
    "scratch_beside",
    "seal",
]

_CHUNK_BYTES = 1 << 24
_AT_ONCE_BYTES = 1 << 14  # of a file that isn't worth a thread
_TRIES = 200  # to open one version while others replace it
_PAUSE_S = 0.005
_HAS_FOLDERS = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_T = TypeVar("_T")


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return integrity.sha256_of(file.fileno())


class IndexWriter:
    """Writes the files of one index into a folder beside `path`; use through `index_writer`.

    Large arrays are written and hashed by one thread in the background; `finish` waits for it.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path
        self._arrays: dict[str, dict[str, Any]] = {}
        self._attachments: dict[str, dict[str, Any]] = {}
        self._pool = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._statuses: dict[str, os.stat_result] = {}
        self._fingerprint: str | None = None

    def add(self, name: str, array: np.ndarray) -> None:
        """Write an array of any shape; it must not change until `finish`."""
        array = np.ascontiguousarray(array)
        entry: dict[str, Any] = {"dtype": array.dtype.newbyteorder("<").str, "shape": list(array.shape)}
        self._arrays[name] = entry
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        self._begin(f"{name}.bin", little.reshape(-1).data, entry)

    def attach(self, name: str, content: bytes | mmap.mmap) -> None:
        """Write an extra file that travels with the index, such as a tokenizer."""
        if not is_plain_name(name):
            raise IndexWriteError(f"{name!r} can't be attached: give a plain file name that doesn't end in .bin")
        entry: dict[str, Any] = {}
        self._attachments[name] = entry
        self._begin(name, memoryview(content), entry)

    def _begin(self, name: str, content: memoryview, entry: dict[str, Any]) -> None:
        """Write a file: small ones at once, others in the background."""
        if content.nbytes <= _AT_ONCE_BYTES:
            self._write(name, content, entry)
        else:
            self._pending.append(self._pool.submit(self._write, name, content, entry))

    def _write(self, name: str, content: memoryview, entry: dict[str, Any]) -> None:
        digest, sums = hashlib.sha256(), integrity.BlockSums()
        view = content.cast("B") if content.nbytes else memoryview(b"")
        with (self.folder / name).open("wb") as file:
            for start in range(0, view.nbytes, _CHUNK_BYTES):
                chunk = view[start : start + _CHUNK_BYTES]
                digest.update(chunk)
                sums.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            self._statuses[name] = os.fstat(file.fileno())
        entry["bytes"] = view.nbytes
        entry["sha256"] = digest.hexdigest()
        entry["crc32"] = sums.hexdigest()

    def wait(self) -> None:
        """Wait until all that was added is on its way to the disk; raises what went wrong."""
        for future in self._pending:
            future.result()
        self._pending.clear()

    def close(self) -> None:
        """Stop the background thread, whatever is pending."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def remember(self) -> None:
        """Have the whole index count as compared with its checksums: they were made of what was written."""
        if self._fingerprint is not None:
            integrity.remember(self.path, self._fingerprint, self._statuses)

    def finish(self, fields: Mapping[str, Any]) -> None:
        """Write the manifest: from here on the folder opens."""
        self.wait()
        manifest: dict[str, Any] = {"format": FORMAT, "version": version_of(fields), **fields}
        manifest["arrays"] = self._arrays
        manifest["attachments"] = self._attachments
        manifest["fingerprint"] = self._fingerprint = seal(manifest)
        check_manifest(manifest, self.folder / MANIFEST)
        files.write_file(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())


@contextlib.contextmanager
def index_writer(
    path: str | os.PathLike[str], *, overwrite: bool = False, instead_of: str | None = None
) -> Iterator[IndexWriter]:
    """Open a new folder beside path for writing; at the end of the block it takes the name path.

    instead_of: the fingerprint of the one index that may be replaced.

    Raises
    ------
    IndexExistsError
        If path exists and overwrite is False; also if what it holds is not an index.
    IndexWriteError
        If the folder can't be written: permission, full disk.
    """
    path = Path(os.path.abspath(path))
    with placed_folder(path, overwrite=overwrite, instead_of=instead_of) as folder:
        writer = IndexWriter(folder, path)
        try:
            yield writer
            writer.wait()
        finally:
            writer.close()
    writer.remember()


@contextlib.contextmanager
def placed_folder(path: Path, *, overwrite: bool = False, instead_of: str | None = None) -> Iterator[Path]:
    """A new folder beside path that takes the name path at the end of the block; errors as of `index_writer`.

    instead_of: the fingerprint of the one index that may be replaced.
    """

    def check(path: Path) -> None:
        _check_replaceable(path)
        if instead_of is not None and _fingerprint_of(path) != instead_of:
            raise IndexWriteError(f"{path} was replaced while it was being changed: what stands there now stays")

    check_target(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.scratch_folder(path.parent, f".{path.name}.building-") as folder:
            yield folder
            files.place_folder(folder, path, check=check if overwrite else None, remove=_remove_index)
    except OSError as error:
        if isinstance(error, CorpusIndexError):
            raise
        if isinstance(error, FileExistsError) and os.path.lexists(path):
            raise _exists(path) from error
        raise _write_error(path, error) from error


@contextlib.contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A folder beside path that is removed at the end of the block, or, of a killed process, by the next such one.

    Raises
    ------
    IndexWriteError
        If it can't be written: permission, full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.scratch_folder(path.parent, f".{path.name}.scratch-") as folder:
            yield folder
    except OSError as error:
        if isinstance(error, CorpusIndexError):
            raise
        raise _write_error(path, error) from error


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a path where a new index must not be written.

    What a process that was killed amid a replacement had taken away from there is put back before.

    Raises
    ------
    IndexExistsError
        Something stands there and overwrite is False; or it is neither an index by its own word nor an empty folder,
        or holds files that aren't the index's.
    IndexWriteError
        It is in the folder of a sharded index.
    """
    path = Path(os.path.abspath(path))
    refuse_inside(path)
    with contextlib.suppress(OSError):
        files.recover(path, _is_whole)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise _exists(path)
    _check_replaceable(path)


def _exists(path: Path) -> IndexExistsError:
    return IndexExistsError(f"{path} exists already: choose another folder, or ask to overwrite it")


def _check_replaceable(path: Path) -> None:
    """Raise IndexExistsError unless a folder is an index by its own word, or empty, and holds nothing else."""
    if path.is_symlink():
        raise IndexExistsError(
            f"{path} is a link to {os.readlink(path)}, so it is not overwritten: name the index's own folder"
        )
    if not path.is_dir():
        raise IndexExistsError(f"{path} is not an index, so it is not overwritten: choose another folder")
    found = set(os.listdir(path))
    if not found:
        return
    named = _named_files(path)
    if named is None:
        raise IndexExistsError(f"{path} is not an index, so it is not overwritten: choose another folder")
    shards = _named_shards(path)
    for name in sorted(found):
        if name in shards and stat.S_ISDIR((path / name).lstat().st_mode):
            _check_replaceable(path / name)
        elif name not in named or not stat.S_ISREG((path / name).lstat().st_mode):
            raise IndexExistsError(
                f"{path} holds {name!r}, which is not the index's, so it is not overwritten: move that away, or choose "
                "another folder"
            )


def _named_files(path: Path) -> set[str] | None:
    """The files that a folder's manifest names, itself included; None where it isn't an index by its own word."""
    try:
        manifest = read_json(path / MANIFEST)
        if manifest["format"] == SHARDS_FORMAT:
            masks = (entry.get("mask", {}).get("name") for entry in manifest["shards"])
            return {MANIFEST, *(name for name in masks if is_mask_name(name))}
        if manifest["format"] != FORMAT:
            return None
        return {MANIFEST, *DERIVED_FILES, *(name for name, _ in file_names(manifest))}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _fingerprint_of(path: Path) -> str | None:
    """What a folder's manifest says, unchecked."""
    try:
        return str(read_json(path / MANIFEST)["fingerprint"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _named_shards(path: Path) -> set[str]:
    """The folders that the manifest of a sharded index names; none where it isn't one by its own word."""
    try:
        manifest = read_json(path / MANIFEST)
        if manifest["format"] != SHARDS_FORMAT:
            return set()
        return {entry["name"] for entry in manifest["shards"] if is_shard_name(entry["name"])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()


def _is_whole(path: Path) -> bool:
    try:
        if format_of(path) == SHARDS_FORMAT:
            manifest = load_shards_manifest(path)
            return not path.is_symlink() and all(
                _is_whole(path / entry.name) and (entry.mask is None or (path / entry.mask.name).is_file())
                for entry in entries_of(manifest)
            )
        read_manifest(path)
    except IndexFormatError:
        return False
    return not path.is_symlink()


def _remove_index(folder: Path) -> None:
    """Remove an index that was replaced: the files that it names, the manifest last, and nothing else."""
    for name in sorted(_named_shards(folder)):
        if (folder / name).is_dir():
            _remove_index(folder / name)
    for name in sorted(_named_files(folder) or (), key=lambda name: name == MANIFEST):
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        kept = folder.with_name(f"kept-{secrets.token_hex(4)}")  # somebody put a file there in this very moment
        folder.rename(kept)
        raise IndexWriteError(
            f"the new index is in place; the old one's folder, {kept}, holds a file that was not the index's, "
            f"{os.listdir(kept)[0]!r}: take it from there"
        ) from error


def _write_error(path: Path, error: OSError) -> IndexWriteError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
        return IndexWriteError(
            f"no space to write {path} ({free / 1e6:,.1f} MB are free): free some or choose another disk; "
            "nothing was kept"
        )
    reason = error.strerror or str(error)
    return IndexWriteError(f"{path} can't be written ({reason}): choose a folder that you may write to")


class OpenFiles(NamedTuple):
    """All files of one version of an index, mapped read-only.

    arrays: by name. attachments: their bytes, by name. stamps: device, inode, size and time of change of each array's
    file, for who opens it again by its path. checked: the name that a check of these files is remembered by.
    """

    manifest: dict[str, Any]
    arrays: Mapping[str, np.ndarray]
    attachments: Mapping[str, mmap.mmap | bytes]
    stamps: Mapping[str, tuple[int, int, int, int]]
    checked: str


def open_files(path: Path, check: str = "first") -> OpenFiles:
    """Open all files of an index: those of one version, though it be replaced meanwhile.

    Parameters
    ----------
    path : Path
    check : {"always", "first", "never"}
        When files are compared with their checksums; see `integrity`.

    Raises
    ------
    IndexFormatError
        If there is no such index, it is damaged, or of a newer version.
    QueryError
        If check is another word.

    Notes
    -----
    The folder is opened once and every file by way of it, so no file of a successor can be among them; the manifest's
    seal binds names, sizes and checksums. Where the folder is being removed, the one that has its name now is opened.
    """
    check = integrity.check_option(check)

    def use(path: Path, folder: int | None, manifest: dict[str, Any]) -> OpenFiles:
        return _map_all(path, folder, manifest, check)

    return _of_one_version(path, use)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an index; its seal, its fields and the sizes of all files checked.

    Raises
    ------
    IndexFormatError
        If there is no such index, it is damaged, or of a newer version.
    """

    def sizes_fit(path: Path, folder: int | None, manifest: dict[str, Any]) -> dict[str, Any]:
        for name, entry in file_names(manifest):
            os.close(_open_sized(path, folder, name, entry))
        return manifest

    return _of_one_version(path, sizes_fit)


def check_files(path: Path) -> str:
    """Compare every file with its SHA-256; returns the fingerprint of the index whose files these are.

    Raises
    ------
    IndexFormatError
        At the first that differs.
    """

    def compare(path: Path, folder: int | None, manifest: dict[str, Any]) -> str:
        for name, entry in file_names(manifest):
            descriptor = _open_sized(path, folder, name, entry)
            try:
                same = integrity.sha256_of(descriptor) == entry["sha256"]
            except OSError as error:
                raise _unreadable(path / name, error) from error
            finally:
                os.close(descriptor)
            if not same:
                raise IndexFormatError(f"{path / name} was changed after it was written: build the index again")
        return str(manifest["fingerprint"])

    return _of_one_version(path, compare)


def _of_one_version(path: Path, use: Callable[[Path, int | None, dict[str, Any]], _T]) -> _T:
    """Call use(path, descriptor of the folder, manifest); again where the folder was replaced meanwhile.

    Where the system has no descriptors of folders (Windows), files are found by their paths: None.
    """
    for _ in range(_TRIES):
        try:
            folder = _open_folder(path)
        except FileNotFoundError:
            # the replacement may have ended, or another begun, since the folder was looked for
            if files.is_being_replaced(path) or path.exists() or files.is_being_replaced(path):
                time.sleep(_PAUSE_S)
                continue
            raise _no_index(path) from None
        except NotADirectoryError:
            raise _no_index(path) from None
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            return use(path, folder, load_manifest(path, folder))
        except FileNotFoundError as error:
            if folder is None or files.is_at(folder, path):
                name = Path(error.filename or MANIFEST).name
                if name == MANIFEST:
                    raise IndexFormatError(f"{path} is not an index: it has no {MANIFEST}") from None
                raise IndexFormatError(f"{path / name} is missing: build the index again") from None
        finally:
            if folder is not None:
                os.close(folder)
    raise IndexFormatError(
        f"{path} is being replaced, or was when a build was killed: open it later, or start the build again"
    )


def _open_folder(path: Path) -> int | None:
    if _HAS_FOLDERS:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if not path.is_dir():
        raise FileNotFoundError
    return None


def _no_index(path: Path) -> IndexFormatError:
    return IndexFormatError(f"there is no index at {path}: give the folder that `index build` wrote")


def _unreadable(path: Path, error: OSError) -> IndexFormatError:
    way_out = "close other files, or raise the limit" if error.errno == errno.EMFILE else "build the index again"
    return IndexFormatError(f"{path} can't be read ({error.strerror or error}): {way_out}")


def _open_sized(path: Path, folder: int | None, name: str, entry: Mapping[str, Any]) -> int:
    """A descriptor of one file of an index, of the size that the manifest says."""
    try:
        descriptor = open_regular(path / name if folder is None else name, folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path / name, error) from error
    size = os.fstat(descriptor).st_size
    if size != entry["bytes"]:
        os.close(descriptor)
        raise IndexFormatError(f"{path / name} has {size:,} bytes instead of {entry['bytes']:,}: build the index again")
    return descriptor


def _map_all(path: Path, folder: int | None, manifest: dict[str, Any], check: str) -> OpenFiles:
    with contextlib.ExitStack() as stack:
        opened: dict[str, int] = {}
        for name, entry in file_names(manifest):
            opened[name] = _open_sized(path, folder, name, entry)
            stack.callback(os.close, opened[name])
        try:
            arrays = {name: _array(opened[f"{name}.bin"], entry) for name, entry in manifest["arrays"].items()}
            attachments = {name: _map(opened[name], entry) for name, entry in manifest["attachments"].items()}
        except OSError as error:
            raise _unreadable(path, error) from error
        stamps = {name: files.stamp_of(os.fstat(opened[f"{name}.bin"])) for name in arrays}
        checked = integrity.check_opened(path, manifest, opened, arrays, check)
    return OpenFiles(manifest, arrays, attachments, stamps, checked)


class OpenFile(NamedTuple):
    """One file of an index, mapped read-only, and its stamp; see `OpenFiles`."""

    content: mmap.mmap | bytes
    stamp: tuple[int, int, int, int]


def map_file(path: Path, entry: Mapping[str, Any]) -> OpenFile:
    """Map one file of an index that isn't whole yet; `open_files` maps those of a whole one.

    Parameters
    ----------
    path : Path
    entry : mapping
        What the manifest says of the file.

    Raises
    ------
    IndexFormatError
        It isn't there, or has another size.
    """
    try:
        descriptor = _open_sized(path.parent, None, path.name, entry)
    except FileNotFoundError as error:
        raise _unreadable(path, error) from error
    try:
        return OpenFile(_map(descriptor, entry), files.stamp_of(os.fstat(descriptor)))
    finally:
        os.close(descriptor)


def _map(descriptor: int, entry: Mapping[str, Any]) -> mmap.mmap | bytes:
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if entry["bytes"] else b""


def _array(descriptor: int, entry: Mapping[str, Any]) -> np.ndarray:
    """A read-only array over the file (its pages are read when touched)."""
    return array_of(_map(descriptor, entry), entry)


def array_of(content: mmap.mmap | bytes, entry: Mapping[str, Any]) -> np.ndarray:
    """A mapped file as the array that the manifest says it is, read-only."""
    return np.frombuffer(content, np.dtype(entry["dtype"])).reshape(entry["shape"])
