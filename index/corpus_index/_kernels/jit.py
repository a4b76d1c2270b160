"""The kernels' decorator: numba's `njit` without the GIL, with a cache that sees an edit in any kernel's file.

The machine code of a function holds all that it calls, but numba's own cache looks at the function's own file alone
(numba issue 1833): after an upgrade that changes a helper, the old helper would go on running inside of its unchanged
callers, perhaps on arrays of another layout, and answer nonsense without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile


def _hash_of_sources() -> bytes:
    digest = hashlib.sha256()
    for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.digest()


_SOURCES = _hash_of_sources()


class _KernelCache(FunctionCache):
    """numba's cache of a function, which also counts as stale when any kernel's source is another."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = (self._impl.locator.get_source_stamp(), _SOURCES)
        self._cache_file = IndexDataCacheFile(self.cache_path, self._impl.filename_base, stamp)


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call, or take it from the cache; options as for `numba.njit`."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = njit(nogil=True, **options)(function)
        compiled._cache = _KernelCache(function)
        return compiled

    return decorate
