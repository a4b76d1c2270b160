"""Indexes on more machines than one, on Ray: shards in actors, and building as tasks (`corpus-teacher[ray]`).

Names are loaded when they are first asked for: an actor needs the index alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus_teacher.distributed.ray_build import build_index_on_ray
    from corpus_teacher.distributed.ray_index import RayIndex

_HOMES = {
    "RayIndex": "corpus_teacher.distributed.ray_index",
    "build_index_on_ray": "corpus_teacher.distributed.ray_build",
}

__all__ = ["RayIndex", "build_index_on_ray"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
