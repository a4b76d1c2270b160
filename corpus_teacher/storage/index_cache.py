"""Indexes behind URLs: fetched into a folder of this user's cache, and used while they come.

Naively: download the folder, open it. `fetching` has one shard's files, `index_fetch` an index of one piece or of
shards, `arriving` the index that is opened before all is there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import corpus_index
from corpus_index import CorpusIndex
from corpus_index.integrity import Check
from corpus_index.shard_manifest import MaskEntry

from corpus_teacher.errors import ConfigError
from corpus_teacher.storage.arriving import arriving
from corpus_teacher.storage.fetching import Arrival, Said, fetch_mask, is_whole, manifest_at
from corpus_teacher.storage.index_fetch import CACHE_VARIABLE, IndexFetch, room, shard_files
from corpus_teacher.storage.urls import UrlPath, place_of, url_of


def open_index(path: str | os.PathLike[str], *, check: Check = "first") -> CorpusIndex:
    """Open an index of this machine, or one behind a URL, which is fetched while it is used.

    Of an index that isn't in the cache yet, this returns when its manifests are here. Each question then waits for the
    files that it reads: what the manifests say for none, `tokens` for the text (of the shards that are read), whatever
    counts for all arrays of all shards, the names of documents for themselves.

    Parameters
    ----------
    path : path or str
        A folder, or a URL of one: `s3://bucket/index`.
    check : {"always", "first", "never"}
        As in `corpus_index.open_index`; what is fetched is checked in any case.

    Raises
    ------
    InputError
        If the URL can't be read; what was fetched stays, and the next call goes on from there. A fetch that fails
        later raises this at the question that waits for it, and at each one after it.
    IndexFormatError, OutputError
        If there is no index, or a damaged one; if the cache has no room. As above, here or at a question.
    """
    url = url_of(path)
    if url is None:
        return corpus_index.open_index(local_index(path), check=check)
    root = index_folder()
    with room(root):
        fetch = IndexFetch(UrlPath(url), root)
    if fetch.is_there:
        fetch.run()
        return corpus_index.open_index(fetch.folder, check=check)
    index = arriving(fetch)
    fetch.start()
    return index


def index_folder() -> Path:
    """Where fetched indexes are: in `CORPUS_TEACHER_CACHE`, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).absolute() / "indexes"  # what comes in the background must not follow the working folder
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corpus-teacher" / "indexes"


def local_index(path: str | os.PathLike[str]) -> Path:
    """The folder of an index on this machine: what was given, or where the index behind a URL was fetched to.

    Raises
    ------
    InputError, IndexFormatError, OutputError
        As `open_index`; a fetch that fails raises here.
    """
    url = url_of(path)
    if url is None:
        place = place_of(path)
        assert isinstance(place, Path)
        return place
    root = index_folder()
    with room(root):
        fetch = IndexFetch(UrlPath(url), root)
    fetch.run()
    return fetch.folder


def manifest_of(url: str) -> Said:
    """The manifest of the index behind a URL; errors as of `open_index`."""
    with room(index_folder()):
        return manifest_at(UrlPath(url), index_folder())


def local_shard(url: str, fingerprint: str, mask: MaskEntry | None = None) -> Path:
    """The folder on this machine of one shard behind a URL, fetched if need be, and its mask beside it.

    Parameters
    ----------
    url : str
        Of the shard: the index's, and its name; or of an index of one piece.
    fingerprint : str
    mask : MaskEntry, optional

    Raises
    ------
    InputError, IndexFormatError, OutputError
        As `open_index`; a fetch that fails raises here.
    """
    root, place = index_folder(), UrlPath(url)
    with room(root):
        if not is_here(fingerprint):
            files = shard_files(place, fingerprint, root, Arrival(place))
            files.fetch()
            files.remember()
        if mask is not None:
            fetch_mask(place.parent, mask, root)
    return root / fingerprint[:32]


def is_here(fingerprint: str) -> bool:
    """Whether this machine's cache has an index or a shard."""
    return is_whole(index_folder() / fingerprint[:32])


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
