"""An index behind a URL on its way into this user's cache, shard by shard: who does it, and where it will be.

A shard is known by its fingerprint, so it is fetched once, whoever's index it is part of. The folder of an index of
shards holds links to their files, and is made when all of them are there.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corpus_index import CorpusIndex
from corpus_index.files import scratch_folder, sync_tree
from corpus_index.manifest import MANIFEST, load_manifest
from corpus_index.shard_manifest import MaskEntry, entries_of
from corpus_index.sharded.masks import Mask, read_mask

from corpus_teacher.errors import IndexFormatError, InputError, OutputError
from corpus_teacher.storage.fetching import Arrival, Said, ShardFiles, fetch_mask, is_whole, link, manifest_at, turn
from corpus_teacher.storage.urls import UrlPath

CACHE_VARIABLE = "CORPUS_TEACHER_CACHE"
"""Names the folder of the cache, in the environment."""


class IndexFetch:
    """The index behind a URL, as its manifests tell it; `run` fetches what is missing.

    Parameters
    ----------
    url : UrlPath
    root : Path
        The folder of the cache.

    Raises
    ------
    InputError, IndexFormatError
        A manifest can't be read, or there is none.
    """

    def __init__(self, url: UrlPath, root: Path) -> None:
        url.refresh()
        self.url, self.root = url, root
        said = manifest_at(url, root)
        self.manifest, self.is_sharded, self._content = said.manifest, said.is_sharded, said.content
        self.folder = root / str(said.manifest["fingerprint"])[:32]
        self.is_there = is_whole(self.folder)
        self.arrival = Arrival(url)
        self.entries = entries_of(said.manifest) if said.is_sharded else []
        self.shards: list[ShardFiles] = []
        self._placed, self._masks = False, dict[str, Path]()
        if self.is_there:
            return
        if not said.is_sharded:
            self.shards = [ShardFiles(url, said, root, self.arrival)]
        for entry in self.entries:
            self.shards.append(shard_files(url / entry.name, entry.fingerprint, root, self.arrival))

    def run(self) -> None:
        """Fetch all shards, in this thread and some others.

        Raises
        ------
        InputError, IndexFormatError, OutputError
        """
        try:
            with room(self.root):
                for entry in self.entries:
                    if entry.mask is not None and not self.is_there:
                        self._fetch_mask(entry.mask)
                for number, files in enumerate(self.shards, start=1):
                    files.fetch(f", shard {number} of {len(self.shards)}" if self.is_sharded else "")
                if self.is_sharded and not self.is_there:
                    self._place()
                for files in self.shards:
                    files.remember()
        except BaseException as error:
            self.arrival.fail(error)
            raise

        def change() -> None:
            self._placed = True

        self.arrival.tell(change)

    def start(self) -> None:
        """Do so in a thread that doesn't keep the process from ending; who waits is told what goes wrong."""

        def work() -> None:
            with suppress(BaseException):  # which `run` has told already
                self.run()

        threading.Thread(target=work, name="fetch", daemon=True).start()

    def wait(self) -> None:
        """Wait until the whole index is in its folder; errors as of `run`."""
        self.arrival.wait(lambda: self._placed, self.folder)

    def mask_of(self, number: int, shard: CorpusIndex) -> Mask:
        """Which documents of a shard were removed, when that is known; errors as of `run`."""
        entry = self.entries[number].mask
        assert entry is not None
        self.arrival.wait(lambda: entry.name in self._masks, self.folder)
        return read_mask(self.root, entry, shard, check=True)

    def _fetch_mask(self, entry: MaskEntry) -> None:
        place = fetch_mask(self.url, entry, self.root)
        self.arrival.tell(lambda: self._masks.update({entry.name: place}))

    def _place(self) -> None:
        """Make the folder of an index of shards."""
        with turn(self.folder), scratch_folder(self.root, ".whole-") as whole:
            if is_whole(self.folder):
                return
            for entry, files in zip(self.entries, self.shards, strict=True):
                files.link(whole / entry.name)
                if entry.mask is not None:
                    link(self._masks[entry.mask.name], whole / entry.mask.name)
            (whole / MANIFEST).write_bytes(self._content)
            sync_tree(whole)
            whole.rename(self.folder)


def shard_files(url: UrlPath, fingerprint: str, root: Path, arrival: Arrival) -> ShardFiles:
    """The files of a shard that an index names.

    Raises
    ------
    InputError, IndexFormatError
        Its manifest can't be read; it is another shard.
    """
    folder = root / fingerprint[:32]
    if is_whole(folder):
        said = Said(load_manifest(folder, None), (folder / MANIFEST).read_bytes())
    else:
        said = manifest_at(url, root)
    if said.manifest["fingerprint"] != fingerprint:
        raise IndexFormatError(f"{url} is another shard than {url.parent} names: fetch it again")
    return ShardFiles(url, said, root, arrival)


@contextmanager
def room(root: Path) -> Iterator[None]:
    """The folder of the cache, made; what goes wrong with its files is one sentence.

    Raises
    ------
    OutputError
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
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
