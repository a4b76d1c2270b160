"""The readers of samples in shards, by the name of their format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.litdata import read_litdata
from corpus_teacher.data.mds import read_mds
from corpus_teacher.data.shards import Record
from corpus_teacher.data.webdataset import read_webdataset
from corpus_teacher.storage import Place

SHARD_READERS: dict[str, Callable[[Place, Sequence[str] | None, ReadLog], Iterator[tuple[str, Record]]]] = {
    "mds": read_mds,
    "litdata": read_litdata,
    "webdataset": read_webdataset,
}
"""Formats of samples in shards; each may hold text or tokens."""
