"""An index behind a URL, opened before it is here: each question waits for the files that it reads.

Naively: fetch the whole index, open it. Here what the manifests say is known at once, the text can be read when it is
there, and whatever counts waits for all arrays of all shards, since an answer is never of a part of the corpus. What
comes last, the names of documents, nobody waits for who doesn't ask for them. Answers are those of the whole index.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from corpus_index import CorpusIndex, ShardedIndex
from corpus_index.addresses import check_addresses
from corpus_index.sharded.masked_shard import MaskedShard
from corpus_index.store import OpenFiles, array_of

from corpus_teacher.errors import IndexFormatError
from corpus_teacher.storage.fetching import TEXT, ShardFiles
from corpus_teacher.storage.index_fetch import IndexFetch

_T = TypeVar("_T")


class _Awaited(Mapping[str, _T]):
    """Values by name, each found when it is first asked for."""

    def __init__(self, names: Collection[str], find: Callable[[str], _T]) -> None:
        self._names, self._find = names, find
        self._found: dict[str, _T] = {}

    def __getitem__(self, name: str) -> _T:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _WholePath:
    """The folder of an index; pickled as its path when all files are there."""

    def __init__(self, files: ShardFiles) -> None:
        self._files = files

    def __reduce__(self) -> tuple[Any, ...]:
        self._files.wait()
        return str, (str(self._files.folder),)


class ArrivingIndex(CorpusIndex):
    """An index of one piece, or a shard, whose files may still be on their way.

    Parameters
    ----------
    files : ShardFiles
        Compared with their checksums when they are here, so nothing else is checked but what they say of places.
    """

    def __init__(self, files: ShardFiles) -> None:
        self._files = files
        super().__init__(files.folder, "never")

    def __reduce__(self) -> tuple[Any, ...]:
        self._files.wait()
        return super().__reduce__()

    def close(self) -> None:
        """Let go of the files, and ask for no more of them."""
        super().close()
        self._files.arrival.stop()

    def _open_files(self, check: str) -> OpenFiles:
        files, manifest = self._files, self._files.manifest
        entries = manifest["arrays"]
        raw = _Awaited(entries, lambda name: array_of(files.opened(f"{name}.bin").content, entries[name]))
        followed: list[bool] = []

        def array(name: str) -> np.ndarray:
            if name not in TEXT and not followed:  # kernels follow it with the others
                check_addresses(files.folder, manifest, dict(raw))
                followed.append(True)
            return raw[name]

        def attachment(name: str) -> mmap.mmap | bytes:
            return files.opened(name).content

        return OpenFiles(
            manifest,
            _Awaited(entries, array),
            _Awaited(manifest["attachments"], attachment),
            _Awaited(entries, lambda name: files.opened(f"{name}.bin").stamp),
            "fetched",
        )

    def _pickled_path(self) -> Any:
        return _WholePath(self._files)

    def prefer_large_pages(self) -> None:
        """Nothing: files that have just come lie in memory, in the pages that they have."""

    def check_files(self) -> None:
        """As `CorpusIndex.check_files`."""
        self._files.wait()
        super().check_files()


class ArrivingShards(ShardedIndex):
    """A sharded index of which some shards may still be on their way.

    Parameters
    ----------
    fetch : IndexFetch
    """

    def __init__(self, fetch: IndexFetch) -> None:
        self.path, self._fetch = fetch.folder, fetch
        shards: list[CorpusIndex] = [ArrivingIndex(files) for files in fetch.shards]
        vocab_size = fetch.manifest["vocab_size"]
        for files, shard in zip(fetch.shards, shards, strict=True):
            if shard.vocab_size != vocab_size:
                raise IndexFormatError(
                    f"{files.url} is not the shard that {fetch.url} names: copy the index there again"
                )
        for number, entry in enumerate(fetch.entries):
            if entry.mask is not None:
                mask = partial(fetch.mask_of, number, shards[number])
                shards[number] = MaskedShard(shards[number], mask, entry, fetch.folder)
        self.take_over(fetch.manifest, shards)

    def __reduce__(self) -> tuple[Any, ...]:
        self._fetch.wait()
        return super().__reduce__()


def arriving(fetch: IndexFetch) -> CorpusIndex:
    """The index of a fetch that has begun; closing it, or forgetting it, ends the fetch."""
    index = ArrivingShards(fetch) if fetch.is_sharded else ArrivingIndex(fetch.shards[0])
    weakref.finalize(index, fetch.arrival.stop)
    return index
