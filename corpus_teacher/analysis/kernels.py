"""The engine's compiled kernels, for `corpus-teacher warm-up`."""

from __future__ import annotations

from corpus_index import Warmed, warm_up

__all__ = ["Warmed", "warm_up"]
