"""One shard behind a URL on its way into this user's cache: which of its files are there, and who waits for them.

Naively: download the folder, compare it with its checksums. Here a file counts as soon as it is compared, whichever
files are still missing, and a file that came in part goes on where it ended. The folder has its final name from the
beginning, so what is open stays where it is; the manifest comes last, and without it the folder is no index.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from corpus_index import CorpusIndexError
from corpus_index.files import scratch_folder, sync_tree, try_lock, write_file
from corpus_index.integrity import compare, remember
from corpus_index.manifest import MANIFEST, file_names, load_manifest
from corpus_index.shard_manifest import SHARDS_FORMAT, MaskEntry, format_of, load_shards_manifest
from corpus_index.store import OpenFile, map_file

from corpus_teacher.errors import IndexFormatError, InputError
from corpus_teacher.storage.urls import UrlPath

_BLOCK_BYTES = 1 << 24
_THREADS = 4
_SLOW_BYTES = 1 << 28  # whoever fetches more is told what takes so long
_MOST_MANIFEST_BYTES = 1 << 28
_PAUSE_S = 0.05  # between looks of a forked process
_LOG = logging.getLogger("corpus_teacher")

TEXT = ("tokens", "doc_starts", "alphabet")
"""Arrays that are read by themselves: the corpus, and where its documents begin."""


class Said(NamedTuple):
    """The manifest behind a URL: checked, and byte for byte."""

    manifest: dict[str, Any]
    content: bytes

    @property
    def is_sharded(self) -> bool:
        """Whether it names shards."""
        return bool(self.manifest["format"] == SHARDS_FORMAT)


def manifest_at(url: UrlPath, root: Path) -> Said:
    """The manifest of the index behind a URL.

    Raises
    ------
    InputError, IndexFormatError
        It can't be read; there is none, or a damaged one.
    """
    place = url / MANIFEST
    if not place.is_file():
        raise IndexFormatError(f"there is no index at {url}: it has no {MANIFEST}")
    size = place.stat().st_size
    if size > _MOST_MANIFEST_BYTES:
        raise IndexFormatError(f"{place} has {size:,} bytes, which is no manifest")
    content = place.read_range(0, size)
    with scratch_folder(root, ".manifest-") as folder:
        (folder / MANIFEST).write_bytes(content)
        try:
            sharded = format_of(folder) == SHARDS_FORMAT
            return Said(load_shards_manifest(folder) if sharded else load_manifest(folder, None), content)
        except IndexFormatError as error:
            said = str(error).replace(str(folder / MANIFEST), str(place)).replace(str(folder), str(url))
            raise IndexFormatError(said.replace("build the index again", "copy the index there again")) from error


def is_whole(folder: Path) -> bool:
    """Whether a folder of the cache is complete."""
    return (folder / MANIFEST).is_file()


class Arrival:
    """How far a fetch is, for the threads and forked processes that wait for it."""

    def __init__(self, url: UrlPath) -> None:
        self.url = url
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._process = os.getpid()
        self._ended = mmap.mmap(-1, 1)  # forked processes see it too

    @property
    def has_ended(self) -> bool:
        """Whether it failed, or was stopped."""
        return self._ended[0] != 0

    def tell(self, change: Callable[[], None]) -> None:
        """Change something that others wait for."""
        with self._changed:
            change()
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End it: whoever waits gets the error, unless there was one before."""

        def change() -> None:
            self._failure = self._failure or error
            self._ended[0] = 1

        self.tell(change)

    def stop(self) -> None:
        """End it: no further block is asked for; what came stays."""
        self.fail(InputError(f"{self.url} was closed before it was fetched: open it again"))

    def wait(self, is_there: Callable[[], bool], folder: Path) -> None:
        """Wait until something is there; in a forked process, until the whole folder is.

        Raises
        ------
        InputError, IndexFormatError, OutputError
            What the fetch failed with.
        """
        if os.getpid() != self._process:
            self._wait_forked(folder)
            return
        with self._changed:
            self._changed.wait_for(lambda: is_there() or self._failure is not None)
            if not is_there():
                self._raise()

    def _raise(self) -> NoReturn:
        error = self._failure
        assert error is not None
        if isinstance(error, CorpusIndexError):
            raise type(error)(*error.args) from error  # every question has its own
        raise error

    def _wait_forked(self, folder: Path) -> None:
        while not is_whole(folder):
            if self.has_ended or not _is_alive(self._process):
                raise InputError(f"{self.url} wasn't fetched to its end by the process that opened it: open it again")
            time.sleep(_PAUSE_S)


class ShardFiles:
    """The files of an index of one piece, or of one shard, behind a URL.

    Parameters
    ----------
    url : UrlPath
        Its folder.
    said : Said
        Its manifest.
    root : Path
        The folder of the cache in which its own will be.
    arrival : Arrival
    """

    def __init__(self, url: UrlPath, said: Said, root: Path, arrival: Arrival) -> None:
        self.url, self.manifest, self._content, self.arrival = url, said.manifest, said.content, arrival
        self.folder = root / str(said.manifest["fingerprint"])[:32]
        self._entries = dict(file_names(said.manifest))
        self._there: set[str] = set()
        self._compared = False

    def opened(self, name: str) -> OpenFile:
        """A file, when it is there and has its checksum.

        Raises
        ------
        InputError, IndexFormatError, OutputError
            It can't be fetched.
        """
        self.arrival.wait(lambda: name in self._there, self.folder)
        return map_file(self.folder / name, self._entries[name])

    def wait(self) -> None:
        """Wait for all files, and the manifest; errors as of `opened`."""
        self.arrival.wait(lambda: MANIFEST in self._there, self.folder)

    def fetch(self, which: str = "") -> None:
        """Fetch what is missing, in this thread and some others; another process that does so is waited for.

        Raises
        ------
        InputError, IndexFormatError, OSError
        """
        with turn(self.folder):
            if not is_whole(self.folder):
                self.folder.mkdir(exist_ok=True)
                missing = sum(int(entry["bytes"]) - _size(self.folder / name) for name, entry in self._entries.items())
                if missing > _SLOW_BYTES:
                    _LOG.warning("Fetching %s%s, %.1f GB, into %s.", self.url, which, missing / 1e9, self.folder.parent)
                jobs = [partial(self._fetch, name) for name in self._in_order()]
                _in_threads(jobs, self.arrival.fail)
                sync_tree(self.folder)
                write_file(self.folder / MANIFEST, self._content)
                self._compared = True
        self.arrival.tell(lambda: self._there.update((*self._entries, MANIFEST)))

    def remember(self) -> None:
        """Have the files count as compared with their checksums where this fetch did so, when all have their names."""
        if not self._compared:
            return
        statuses = {name: os.stat(self.folder / name) for name in self._entries}
        remember(self.folder, self.manifest["fingerprint"], statuses)

    def link(self, folder: Path) -> None:
        """Give all files, the manifest included, second names in a new folder."""
        folder.mkdir()
        for name in (*self._entries, MANIFEST):
            link(self.folder / name, folder / name)

    def _in_order(self) -> list[str]:
        """What is read by itself first, the tokenizer above all; the names of documents last."""
        names, text = self.manifest.get("document_names"), [f"{name}.bin" for name in TEXT]
        return sorted(
            self._entries, key=lambda name: 3 if name == names else 0 if name[-4:] != ".bin" else 1 + (name not in text)
        )

    def _fetch(self, name: str) -> None:
        """Fetch a file, or what is missing at its end, and compare it with its checksum."""
        url, place, entry = self.url / name, self.folder / name, self._entries[name]
        size, there = int(entry["bytes"]), url.stat().st_size
        if there != size:
            raise IndexFormatError(
                f"{url} has {there:,} bytes, its manifest tells of {size:,}: copy the index there again"
            )
        with place.open("ab") as file:
            begin = file.tell()
            if begin > size:
                file.truncate(0)
                begin = 0
            while begin < size:
                if self.arrival.has_ended:
                    raise InputError(f"{self.url} was closed before it was fetched: open it again")
                end = min(size, begin + _BLOCK_BYTES)
                file.write(url.read_range(begin, end))
                file.flush()
                begin = end
        self._check(name, entry)
        self.arrival.tell(lambda: self._there.add(name))

    def _check(self, name: str, entry: dict[str, Any]) -> None:
        """Compare a file with its checksum; one that differs is removed, so that it is fetched again."""
        kind, key = ("arrays", name.removesuffix(".bin")) if name.endswith(".bin") else ("attachments", name)
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        try:
            compare(self.folder, {"arrays": {}, "attachments": {}, kind: {key: entry}}, {name: descriptor})
        except IndexFormatError as error:
            (self.folder / name).unlink()
            raise _differs(self.url / name) from error
        finally:
            os.close(descriptor)


def fetch_mask(url: UrlPath, mask: MaskEntry, root: Path) -> Path:
    """Fetch what says which documents of a shard of the index behind a URL were removed."""
    place, source = root / mask.name, url / mask.name
    if not place.is_file():
        size = source.stat().st_size
        content = source.read_range(0, size) if size else b""
        if hashlib.sha256(content).hexdigest() != mask.sha256:
            raise _differs(source)
        write_file(place, content)
    return place


def _differs(url: UrlPath) -> IndexFormatError:
    return IndexFormatError(
        f"{url} doesn't have the checksum that its manifest tells: fetch it again, or copy the index there again"
    )


def link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system has no such."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """While one process or thread fetches a folder, others wait here."""
    place = folder.with_name(f".{folder.name}.fetching")
    place.touch()
    lock = try_lock(place, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _in_threads(jobs: Sequence[Callable[[], None]], fail: Callable[[BaseException], None]) -> None:
    """Do all, begun in order, in some threads that don't keep a process from ending.

    fail: is given each error; it has the other jobs end soon. No other is begun.

    Raises
    ------
    BaseException
        The first error, when those that were begun have ended.
    """
    waiting, errors = iter(jobs), list[BaseException]()
    lock = threading.Lock()

    def note(error: BaseException) -> None:
        errors.append(error)
        fail(error)

    def work() -> None:
        while not errors:
            with lock:
                job = next(waiting, None)
            if job is None:
                return
            try:
                job()
            except BaseException as error:
                note(error)

    threads = [threading.Thread(target=work, name=f"fetch-{n}", daemon=True) for n in range(_THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt as error:
            note(error)
    if errors:
        raise errors[0]


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
