"""Files and indexes behind URLs (`s3://`, `gs://`, `hf://`, `memory://`, …), through fsspec."""

from __future__ import annotations

from corpus_teacher.storage.index_cache import (
    index_folder,
    index_of,
    is_here,
    local_index,
    local_shard,
    manifest_of,
    open_index,
)
from corpus_teacher.storage.urls import Place, UrlPath, place_of, url_of, written_path

__all__ = [
    "Place",
    "UrlPath",
    "index_folder",
    "index_of",
    "is_here",
    "local_index",
    "local_shard",
    "manifest_of",
    "open_index",
    "place_of",
    "url_of",
    "written_path",
]
