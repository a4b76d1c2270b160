"""The files of a cache: shards of records, and a manifest that lists and seals them.

A shard is written under another name and takes its own when it is whole; the manifest is replaced after each
shard, and knows the checksum of its head. So a run that is killed leaves a cache that opens and holds all shards but
the one in the making, and a reader never takes another cache's shard for its own.

| bytes of a shard | what |
|---|---|
| 8 | `CTCACHE1` |
| 8 | W, windows, uint64 (all numbers little-endian) |
| 16 · W | keys of the windows (`window_keys`) |
| 8 · (W + 1) | where each record begins, uint64, counted from the end of this head; then where the last ends |
| 4 · W | CRC-32 of each record, uint32 |
| 4 | CRC-32 of all before, uint32 |
| … | the records (`corpus_teacher.neural.coding`) |

The CRC of a record is checked whenever it is read, the manifest's SHA-256 of a file by `CachedTeacher.verify`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.errors import CacheError, ConfigError, OutputError
from corpus_teacher.files import open_regular, read_json, write_bytes, write_json
from corpus_teacher.neural.formats import TargetFormat
from corpus_teacher.neural.identity import KEY_BYTES

FORMAT = "corpus-teacher-cache"
VERSION = 1
MANIFEST = "manifest.json"

_MAGIC = b"CTCACHE1"
_CHUNK_BYTES = 1 << 24
_WAY_OUT = "write the cache again"


class Shard:
    """One open shard.

    Parameters
    ----------
    path : Path
    entry : mapping
        What the manifest says of it: "windows", "bytes" and (but for older caches) "head_crc32".

    Raises
    ------
    CacheError
        A missing file, or one whose size or head is wrong.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any]) -> None:
        self.path = path
        windows = int(entry["windows"])
        head = _head_bytes(windows)
        try:
            with open_regular(path) as file:
                self._bytes = np.memmap(file, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise CacheError(f"the shard {path} can't be read ({error}): write the cache again") from error
        if len(self._bytes) != entry["bytes"] or len(self._bytes) < head:
            raise CacheError(f"the shard {path} has {len(self._bytes):,} bytes and not {entry['bytes']:,}: {_WAY_OUT}")
        front = self._bytes[: head - 4].tobytes()
        said = int(self._bytes[head - 4 : head].view("<u4")[0])
        if front[:8] != _MAGIC or zlib.crc32(front) != said or int.from_bytes(front[8:16], "little") != windows:
            raise CacheError(f"the head of the shard {path} is damaged: {_WAY_OUT}")
        if entry.get("head_crc32", said) != said:
            raise CacheError(f"the shard {path} is another cache's: open the cache again, or write it again")
        at = 16 + KEY_BYTES * windows
        self.keys = np.frombuffer(front, np.uint8, KEY_BYTES * windows, 16).reshape(windows, KEY_BYTES)
        begins = np.frombuffer(front, "<u8", windows + 1, at)
        if begins[0] != 0 or begins[-1] != len(self._bytes) - head or bool((begins[1:] < begins[:-1]).any()):
            raise CacheError(f"the head of the shard {path} is damaged: {_WAY_OUT}")
        self._begins = begins.astype(np.int64) + head
        self._sums = np.frombuffer(front, "<u4", windows, at + 8 * (windows + 1))

    def record(self, number: int) -> npt.NDArray[np.uint8]:
        """The bytes of a window's record.

        Raises
        ------
        CacheError
            Bytes that aren't those that were written.
        """
        record = self._bytes[self._begins[number] : self._begins[number + 1]]
        if zlib.crc32(record.tobytes()) != int(self._sums[number]):
            raise CacheError(f"window {number} of the shard {self.path} is damaged: {_WAY_OUT}")
        return np.asarray(record)


def write_shard(path: Path, keys: Sequence[bytes], records: Sequence[bytes]) -> dict[str, Any]:
    """Write a shard whole or not at all; returns its entry for the manifest.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    begins = np.concatenate([[0], np.cumsum([len(record) for record in records])])
    front = b"".join(
        [
            _MAGIC,
            len(keys).to_bytes(8, "little"),
            *keys,
            begins.astype("<u8").tobytes(),
            np.array([zlib.crc32(record) for record in records], "<u4").tobytes(),
        ]
    )
    crc = zlib.crc32(front)
    content = b"".join([front, crc.to_bytes(4, "little"), *records])
    write_bytes(path, content)
    entry = {"file": path.name, "windows": len(keys), "bytes": len(content), "sha256": _sha256(content)}
    return {**entry, "head_crc32": crc}


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> None:
    """Replace the manifest by one with these fields, sealed."""
    manifest = {"format": FORMAT, "version": VERSION, **fields}
    manifest["seal"] = _seal(manifest)
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a cache.

    Raises
    ------
    CacheError
        If the folder holds none, or it is damaged or of a newer version, or a field is wrong.
    """
    try:
        manifest = read_json(folder / MANIFEST)
    except FileNotFoundError as error:
        raise CacheError(
            f"{folder} holds no cache of a teacher: write one with `corpus-teacher teacher cache`"
        ) from error
    except (OSError, ValueError) as error:
        raise CacheError(f"the manifest of {folder} can't be read ({error}): write the cache again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CacheError(f"{folder} is no cache of a teacher: its manifest is of another program")
    if manifest.get("version") != VERSION:
        raise CacheError(
            f"{folder} is a cache of version {manifest.get('version')}; this program reads version {VERSION}"
        )
    if manifest.get("seal") != _seal(manifest):
        raise CacheError(f"the manifest of {folder} was changed or damaged: write the cache again")
    for name, is_right in _SCHEMA.items():
        if not is_right(manifest.get(name)):
            shown = str(manifest.get(name))[:80]
            raise CacheError(f"the manifest of {folder} is wrong in {name!r}, which is {shown}: {_WAY_OUT}")
    return manifest


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05d}.bin"


def clear_strays(folder: Path, fields: Mapping[str, Any]) -> None:
    """Remove the files of a cache's own kind that its manifest doesn't name: what killed runs and older caches left.

    Raises
    ------
    OutputError
    """
    named = {entry["file"] for entry in fields["shards"]}
    try:
        for name in os.listdir(folder):
            if (_SHARD.fullmatch(name) and name not in named) or is_leftover(name):
                (folder / name).unlink()
    except OSError as error:
        raise OutputError(f"{folder} can't be written ({error.strerror or error}): write elsewhere") from error


def is_leftover(name: str) -> bool:
    """Whether a file is one that a killed run was writing."""
    stem = name.removesuffix(".partial")
    return stem != name and _OWN.fullmatch(stem.removeprefix(".")) is not None


def check_sums(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Compare every file with its SHA-256; yields the names of those that passed.

    Raises
    ------
    CacheError
        At the first that differs.
    """
    for entry in [*manifest["shards"], *([manifest["head"]] if manifest.get("head") else [])]:
        check_sum(folder, entry)
        yield entry["file"]


def check_sum(folder: Path, entry: Mapping[str, Any]) -> None:
    """Compare one file with its SHA-256.

    Raises
    ------
    CacheError
    """
    path = folder / entry["file"]
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise CacheError(f"{path} can't be read ({error.strerror or error}): {_WAY_OUT}") from error
    if digest.hexdigest() != entry["sha256"]:
        raise CacheError(f"{path} is damaged: its SHA-256 is not that of the manifest; write the cache again")


def _head_bytes(windows: int) -> int:
    return 16 + KEY_BYTES * windows + 8 * (windows + 1) + 4 * windows + 4


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _seal(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "seal"}
    return _sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _is_vocabulary(value: Any) -> bool:
    return _is_count(value) and value <= _MOST_TOKENS


def _is_entry(value: Any) -> bool:
    """Whether this describes a file in the folder itself."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("file"), str)
        and _OWN.fullmatch(value["file"]) is not None
        and value["file"] != MANIFEST
        and _is_count(value.get("bytes"))
        and isinstance(value.get("sha256"), str)
    )


def _is_shard(value: Any) -> bool:
    cut = value.get("cut_mass") if isinstance(value, dict) else None
    return (
        _is_entry(value)
        and _is_count(value.get("windows"))
        and type(cut) in (int, float)
        and _is_count(value.get("head_crc32", 0))
    )


def _is_format(value: Any) -> bool:
    try:
        TargetFormat(**value)
    except (TypeError, ConfigError):
        return False
    return True


_MOST_TOKENS = 1 << 24
"""Of a teacher's vocabulary, for which a distribution is kept in memory when a cache is opened."""
_SHARD = re.compile(r"shard-\d{5,9}\.bin")
_OWN = re.compile(rf"{_SHARD.pattern}|{re.escape(MANIFEST)}|head\.pt")
_SCHEMA: dict[str, Callable[[Any], bool]] = {
    "teacher": lambda value: isinstance(value, dict) and _is_vocabulary(value.get("vocab_size")),
    "kept": _is_format,
    "length": lambda value: _is_count(value) and value > 0,
    "hidden_size": _is_count,
    "shard_windows": lambda value: _is_count(value) and value > 0,
    "head": lambda value: value is None or _is_entry(value),
    "shards": lambda value: isinstance(value, list) and all(map(_is_shard, value)),
}
