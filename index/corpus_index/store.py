"""An index on disk: a folder of flat little-endian arrays and a manifest that describes and seals them.

A folder is written beside its final place under another name and renamed when it is whole, so a build that is killed
leaves nothing that opens. The manifest holds the size and the SHA-256 of every file, and its own; sizes and the
manifest's seal are checked at every opening, the rest by `verify`. index/README.md specifies the format byte by byte.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from corpus_index.errors import CorpusIndexError, IndexExistsError, IndexFormatError, IndexWriteError

FORMAT = "corpus-index"
VERSION = 2  # of indexes that name `deepest`; others are of version 1
DEEPEST = 65_534  # build counts shared symbols up to 65,535
MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 24


def seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a manifest's canonical JSON, its own `fingerprint` left out."""
    content = {key: value for key, value in manifest.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class IndexWriter:
    """Writes the files of one index into a folder beside `path`; use through `index_writer`.

    Arrays are written and hashed by one thread in the background; `finish` waits for it.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path
        self._arrays: dict[str, dict[str, Any]] = {}
        self._attachments: dict[str, dict[str, Any]] = {}
        self._pool = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []

    def add(self, name: str, array: np.ndarray) -> None:
        """Write an array of any shape; it must not change until `finish`."""
        array = np.ascontiguousarray(array)
        entry: dict[str, Any] = {"dtype": array.dtype.newbyteorder("<").str, "shape": list(array.shape)}
        self._arrays[name] = entry
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        self._pending.append(self._pool.submit(self._write, f"{name}.bin", little.reshape(-1).data, entry))

    def attach(self, name: str, content: bytes) -> None:
        """Write an extra file that travels with the index, such as a tokenizer."""
        if Path(name).name != name or name == MANIFEST or name.endswith(".bin"):
            raise IndexWriteError(f"{name!r} can't be attached: give a plain file name that doesn't end in .bin")
        entry: dict[str, Any] = {}
        self._attachments[name] = entry
        self._pending.append(self._pool.submit(self._write, name, memoryview(content), entry))

    def _write(self, name: str, content: memoryview, entry: dict[str, Any]) -> None:
        digest = hashlib.sha256()
        view = content.cast("B") if content.nbytes else memoryview(b"")
        with (self.folder / name).open("wb") as file:
            for start in range(0, view.nbytes, _CHUNK_BYTES):
                chunk = view[start : start + _CHUNK_BYTES]
                digest.update(chunk)
                file.write(chunk)
        entry["bytes"] = view.nbytes
        entry["sha256"] = digest.hexdigest()

    def wait(self) -> None:
        """Wait until all that was added is on its way to the disk; raises what went wrong."""
        for future in self._pending:
            future.result()
        self._pending.clear()

    def close(self) -> None:
        """Stop the background thread, whatever is pending."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def finish(self, fields: Mapping[str, Any]) -> None:
        """Write the manifest: from here on the folder opens."""
        self.wait()
        manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION if "deepest" in fields else 1, **fields}
        manifest["arrays"] = self._arrays
        manifest["attachments"] = self._attachments
        manifest["fingerprint"] = seal(manifest)
        with (self.folder / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def index_writer(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[IndexWriter]:
    """Open a new folder beside path for writing; at the end of the block it takes the name path.

    Raises
    ------
    IndexExistsError
        If path exists and overwrite is False; also if what it holds is not an index.
    IndexWriteError
        If the folder can't be written: permission, full disk.
    """
    path = Path(os.path.abspath(path))
    check_target(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.building-", dir=path.parent))
    except OSError as error:
        raise _write_error(path, error) from error
    writer = IndexWriter(folder, path)
    try:
        try:
            yield writer
            writer.wait()
            folder.chmod(0o777 & ~_umask())
            if path.exists():
                check_target(path, overwrite=overwrite)
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
                path.rename(old / path.name)
                try:
                    folder.rename(path)
                except BaseException:
                    (old / path.name).rename(path)
                    raise
                finally:
                    shutil.rmtree(old, ignore_errors=True)
            else:
                folder.rename(path)
        finally:
            writer.close()
    except OSError as error:
        if isinstance(error, CorpusIndexError):
            raise
        raise _write_error(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise IndexExistsError where a new index must not be written."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise IndexExistsError(f"{path} exists already: choose another folder, or ask to overwrite it (--force)")
    if not path.is_dir() or (any(path.iterdir()) and not (path / MANIFEST).is_file()):
        raise IndexExistsError(f"{path} is not an index, so it is not overwritten: choose another folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_error(path: Path, error: OSError) -> IndexWriteError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
        return IndexWriteError(
            f"no space to write {path} ({free / 1e6:,.1f} MB are free): free some or choose another disk; "
            "nothing was kept"
        )
    reason = error.strerror or str(error)
    return IndexWriteError(f"{path} can't be written ({reason}): choose a folder that you may write to")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an index, its seal and the sizes of all files checked.

    Raises
    ------
    IndexFormatError
        If there is no such index, it is damaged, or of a newer version.
    """
    if not path.is_dir():
        raise IndexFormatError(f"there is no index at {path}: give the folder that `index build` wrote")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IndexFormatError(f"{path} is not an index: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise IndexFormatError(f"{path / MANIFEST} can't be read ({error}): build the index again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise IndexFormatError(f"{path / MANIFEST} describes no {FORMAT}: give the folder that `index build` wrote")
    if not isinstance(manifest.get("version"), int) or manifest["version"] > VERSION:
        raise IndexFormatError(
            f"{path} has format version {manifest.get('version')}, this program reads up to {VERSION}: "
            "upgrade corpus-teacher, or build the index again"
        )
    if manifest.get("fingerprint") != seal(manifest):
        raise IndexFormatError(f"{path / MANIFEST} was changed after it was written: build the index again")
    for name, entry in files_of(manifest):
        try:
            size = (path / name).stat().st_size
        except OSError:
            raise IndexFormatError(f"{path / name} is missing: build the index again") from None
        if size != entry["bytes"]:
            raise IndexFormatError(
                f"{path / name} has {size:,} bytes instead of {entry['bytes']:,}: build the index again"
            )
    return manifest


def files_of(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and entry of everything that a manifest names."""
    for name, entry in manifest["arrays"].items():
        yield f"{name}.bin", entry
    yield from manifest["attachments"].items()


def map_array(path: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    """A read-only array over the file (its pages are read when touched)."""
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    if entry["bytes"] == 0:
        array = np.empty(shape, dtype)
        array.flags.writeable = False
        return array
    with (path / f"{name}.bin").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype).reshape(shape)


def check_files(path: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file with its SHA-256; raises IndexFormatError on the first that differs."""
    for name, entry in files_of(manifest):
        if file_sha256(path / name) != entry["sha256"]:
            raise IndexFormatError(f"{path / name} was changed after it was written: build the index again")
