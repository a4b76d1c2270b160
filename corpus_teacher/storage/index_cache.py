"""Indexes behind URLs: fetched into a folder of this user's cache, shard by shard, and opened there.

Naively: download the folder, open it. Here a shard is known by its fingerprint, so it is fetched once, whoever's index
it is part of; a file that was fetched in part goes on where it ended; a shard gets its name when all of its files have
the checksums that its manifest tells. The folder of an index holds links to its shards' files. An index that was
appended to needs its new shards alone.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import corpus_index
from corpus_index import CorpusIndex
from corpus_index.files import scratch_folder, sync_tree, try_lock
from corpus_index.integrity import Check, compare
from corpus_index.manifest import MANIFEST, file_names, load_manifest
from corpus_index.shard_manifest import SHARDS_FORMAT, MaskEntry, entries_of, format_of, load_shards_manifest

from corpus_teacher.errors import ConfigError, IndexFormatError, InputError, OutputError
from corpus_teacher.storage.urls import UrlPath, place_of, url_of

CACHE_VARIABLE = "CORPUS_TEACHER_CACHE"
"""Names the folder of the cache, in the environment."""

_BLOCK_BYTES = 1 << 24
_THREADS = 4
_SLOW_BYTES = 1 << 28  # whoever fetches more is told what takes so long
_MOST_MANIFEST_BYTES = 1 << 28
_LOG = logging.getLogger("corpus_teacher")


def open_index(path: str | os.PathLike[str], *, check: Check = "first") -> CorpusIndex:
    """Open an index of this machine, or fetch one behind a URL and open it.

    Parameters
    ----------
    path : path or str
        A folder, or a URL of one: `s3://bucket/index`.
    check : {"always", "first", "never"}
        As in `corpus_index.open_index`.

    Raises
    ------
    InputError
        If the URL can't be read; what was fetched stays, and the next call goes on from there.
    IndexFormatError, OutputError
        If there is no index, or a damaged one; if the cache has no room.
    """
    return corpus_index.open_index(local_index(path), check=check)


def cache_folder() -> Path:
    """Where fetched indexes are: `CORPUS_TEACHER_CACHE`, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corpus-teacher"


def local_index(path: str | os.PathLike[str]) -> Path:
    """The folder of an index on this machine: what was given, or where the index behind a URL was fetched to.

    Raises
    ------
    InputError, IndexFormatError, OutputError
        As `open_index`.
    """
    url = url_of(path)
    if url is None:
        place = place_of(path)
        assert isinstance(place, Path)
        return place
    root = cache_folder() / "indexes"
    with _room(root):
        root.mkdir(parents=True, exist_ok=True)
        return _fetched(UrlPath(url), root)


def _fetched(url: UrlPath, root: Path) -> Path:
    """The folder that holds the index of a URL, fetched if need be."""
    url.refresh()
    with scratch_folder(root, ".manifest-") as folder:
        _take_manifest(url, folder)
        sharded = format_of(folder) == SHARDS_FORMAT
        manifest = load_shards_manifest(folder) if sharded else load_manifest(folder, None)
        target = root / manifest["fingerprint"][:32]
        if target.is_dir():
            return target
        if not sharded:
            _fetch_shard(url, manifest, folder / MANIFEST, target, "")
            return target
        entries = entries_of(manifest)
        for number, entry in enumerate(entries, start=1):
            shard = root / entry.fingerprint[:32]
            if not shard.is_dir():
                with scratch_folder(root, ".manifest-") as own:
                    _take_manifest(url / entry.name, own)
                    told = load_manifest(own, None)
                    if told["fingerprint"] != entry.fingerprint:
                        raise IndexFormatError(f"{url / entry.name} is another shard than {url} names: fetch it again")
                    _fetch_shard(url / entry.name, told, own / MANIFEST, shard, f", shard {number} of {len(entries)}")
        with _turn(target), scratch_folder(root, ".whole-") as whole:
            if not target.is_dir():
                for entry in entries:
                    shutil.copytree(root / entry.fingerprint[:32], whole / entry.name, copy_function=_link)
                    if entry.mask is not None:
                        _fetch_mask(url, entry.mask, whole / entry.mask.name)
                shutil.copyfile(folder / MANIFEST, whole / MANIFEST)
                sync_tree(whole)
                whole.rename(target)
    return target


def _take_manifest(url: UrlPath, folder: Path) -> None:
    """Put the manifest behind a URL into a folder."""
    place = url / MANIFEST
    if not place.is_file():
        raise IndexFormatError(f"there is no index at {url}: it has no {MANIFEST}")
    size = place.stat().st_size
    if size > _MOST_MANIFEST_BYTES:
        raise IndexFormatError(f"{place} has {size:,} bytes, which is no manifest")
    (folder / MANIFEST).write_bytes(place.read_range(0, size))


def _fetch_shard(url: UrlPath, manifest: dict[str, Any], said: Path, target: Path, which: str) -> None:
    """Fetch an index of one piece; it gets its name when all files have their checksums."""
    partial = target.with_name(f"{target.name}.partial")
    with _turn(target):
        if target.is_dir():  # another process fetched it meanwhile
            return
        partial.mkdir(exist_ok=True)
        files = {name: int(entry["bytes"]) for name, entry in file_names(manifest)}
        missing = sum(files.values()) - sum(_size(partial / name) for name in files)
        if missing > _SLOW_BYTES:
            _LOG.warning("Fetching %s%s, %.1f GB, into %s.", url, which, missing / 1e9, target.parent)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool:
            jobs = [pool.submit(_fetch_file, url / name, partial / name, size) for name, size in files.items()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        _check(url, manifest, partial)
        shutil.copyfile(said, partial / MANIFEST)
        sync_tree(partial)
        partial.rename(target)


def _fetch_mask(url: UrlPath, mask: MaskEntry, place: Path) -> None:
    """Fetch what says which documents of a shard were removed."""
    source = url / mask.name
    size = source.stat().st_size
    content = source.read_range(0, size) if size else b""
    if hashlib.sha256(content).hexdigest() != mask.sha256:
        raise IndexFormatError(
            f"{source} doesn't have the checksum that its manifest tells: fetch it again, or copy the index there again"
        )
    place.write_bytes(content)


def _fetch_file(url: UrlPath, place: Path, size: int) -> None:
    """Fetch a file, or what is missing at its end."""
    there = url.stat().st_size
    if there != size:
        raise IndexFormatError(f"{url} has {there:,} bytes, its manifest tells of {size:,}: copy the index there again")
    with place.open("ab") as file:
        begin = file.tell()
        if begin > size:
            file.truncate(0)
            begin = 0
        while begin < size:
            end = min(size, begin + _BLOCK_BYTES)
            file.write(url.read_range(begin, end))
            file.flush()
            begin = end


def _check(url: UrlPath, manifest: dict[str, Any], folder: Path) -> None:
    """Compare fetched files with their checksums; those that differ are removed, so that they are fetched again."""
    for name, entry in file_names(manifest):
        arrays = {name.removesuffix(".bin"): entry} if name.endswith(".bin") else {}
        attachments = {} if arrays else {name: entry}
        with ExitStack() as stack:
            descriptor = os.open(folder / name, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                compare(folder, {"arrays": arrays, "attachments": attachments}, {name: descriptor})
            except IndexFormatError as error:
                (folder / name).unlink()
                raise IndexFormatError(
                    f"{url / name} doesn't have the checksum that its manifest tells: fetch it again, or copy the "
                    "index there again"
                ) from error


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _link(source: str, target: str) -> None:
    """A second name of a file, or a copy where the file system has no such."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _turn(target: Path) -> Iterator[None]:
    """While one process or thread fetches a folder, others wait here."""
    place = target.with_name(f".{target.name}.fetching")
    place.touch()
    lock = try_lock(place, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def _room(root: Path) -> Iterator[None]:
    """What goes wrong with the cache's own files, in one sentence."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"no space for the index in {root}: free some, or name another folder in {CACHE_VARIABLE}; what was "
                "fetched stays, and the next call goes on from there"
            ) from error
        raise OutputError(
            f"an index can't be fetched into {root} ({error.strerror or error}): name another folder in "
            f"{CACHE_VARIABLE}"
        ) from error


def index_of(given: Any, *, check: Check = "first") -> CorpusIndex:
    """An index as it is, of whatever kind, or the one at a path or URL.

    Raises
    ------
    ConfigError
        Neither.
    """
    if isinstance(given, (str, Path)):
        return open_index(given, check=check)
    if not hasattr(given, "smoothed_targets"):
        raise ConfigError(f"the index is {type(given).__name__}: give a CorpusIndex, or the folder of one")
    return cast("CorpusIndex", given)
