"""A sharded folder, written beside its place and exchanged in one step; shards that stay are linked, not copied."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from corpus_index import files
from corpus_index.errors import IndexWriteError
from corpus_index.index import CorpusIndex
from corpus_index.manifest import DERIVED_FILES, MANIFEST
from corpus_index.shard_manifest import ShardEntry, check_shards_manifest, shard_name, shards_manifest
from corpus_index.sharded.masked_shard import MaskedShard
from corpus_index.sharded.masks import Mask
from corpus_index.store import placed_folder

_NEW = "new"


class ShardWriter:
    """Collects the shards of one sharded index in a folder beside its place; use through `shard_writer`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: list[ShardEntry] = []

    def add(self, build: Callable[[Path], CorpusIndex], mask: Mask | None = None) -> None:
        """Append a shard that is built now: build(path) writes an index there and returns it, opened.

        mask: what is removed from it.
        """
        with build(self.folder / _NEW) as index:
            name = self._append(index, mask)
        os.rename(self.folder / _NEW, self.folder / name)

    def link(self, index: CorpusIndex, mask: Mask | None = None) -> None:
        """Append an index that is there: its files get a second name, or a copy where the file system has no links.

        mask: what is removed from it; by default what has been removed already.

        Raises
        ------
        OSError
            Of the file system; or the index was replaced since it was opened.
        """
        if isinstance(index, MaskedShard):
            mask = index.mask if mask is None else mask
            index = index.whole
        name = self._append(index, mask)
        target = self.folder / name
        target.mkdir()
        for entry in os.scandir(index.path):
            if entry.name not in DERIVED_FILES[2:] and entry.is_file(follow_symlinks=False):
                try:
                    os.link(entry.path, target / entry.name)
                except OSError:
                    shutil.copyfile(entry.path, target / entry.name)
        with CorpusIndex.open(target, check="never") as linked:
            if linked.fingerprint != index.fingerprint:
                raise IndexWriteError(f"{index.path} was replaced while it was being used: start again")
        files.sync_tree(target)

    def _append(self, index: CorpusIndex, mask: Mask | None = None) -> str:
        name = shard_name(index.fingerprint, [entry.name for entry in self._entries])
        last = self._entries[-1] if self._entries else None
        masked = None if mask is None else mask.entry()
        if mask is not None and masked is not None:
            files.write_file(self.folder / masked.name, mask.content())
        self._entries.append(
            ShardEntry(
                name,
                index.fingerprint,
                0 if last is None else last.first_document + last.num_documents,
                0 if last is None else last.first_position + last.num_tokens,
                index.num_documents - (0 if masked is None else masked.documents),
                index.num_tokens - (0 if masked is None else masked.tokens),
                masked,
            )
        )
        return name

    def finish(self, vocab_size: int, metadata: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        """Write the manifest: from here on the folder opens."""
        manifest = shards_manifest(self._entries, vocab_size, metadata, history)
        check_shards_manifest(manifest, self.folder / MANIFEST)
        files.write_file(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())


@contextlib.contextmanager
def shard_writer(path: Path, *, overwrite: bool = False, instead_of: str | None = None) -> Iterator[ShardWriter]:
    """Open a folder beside path for writing; at the end of the block it takes the name path.

    instead_of: the fingerprint of the index that it replaces: if another stands there by then, that one stays.

    Raises
    ------
    IndexExistsError, IndexWriteError
        As `store.index_writer`.
    """
    with placed_folder(path, overwrite=overwrite, instead_of=instead_of) as folder:
        yield ShardWriter(folder)


def event(what: str, **facts: Any) -> dict[str, Any]:
    """A line of a folder's history: what was done, when (UTC), and what one wants to know of it."""
    return {"what": what, "when": datetime.now(timezone.utc).isoformat(timespec="seconds"), **facts}


def cut_documents(doc_starts: np.ndarray, shard_tokens: int) -> list[tuple[int, int]]:
    """Documents first … end − 1 of each shard: of about equal size, at most shard_tokens where documents allow it.

    A longer document is a shard of its own, and documents without tokens go with their neighbours, so every shard
    holds a token.

    Examples
    --------
    >>> cut_documents(np.array([0, 2, 2, 4, 9, 10, 10]), 4)
    [(0, 3), (3, 4), (4, 6)]
    """
    total, cuts = int(doc_starts[-1]), [0]
    aim = -(-total // max(1, -(-total // shard_tokens)))
    while doc_starts[cuts[-1]] < total:
        begin = int(doc_starts[cuts[-1]])
        end = int(np.searchsorted(doc_starts, begin + aim, side="left"))
        if end == doc_starts.size or doc_starts[end] > begin + shard_tokens:
            end = int(np.searchsorted(doc_starts, begin + shard_tokens, side="right")) - 1
        end = max(end, int(np.searchsorted(doc_starts, begin, side="right")))
        cuts.append(int(np.searchsorted(doc_starts, doc_starts[end], side="right")) - 1)
    cuts[-1] = doc_starts.size - 1
    return list(pairwise(cuts))
