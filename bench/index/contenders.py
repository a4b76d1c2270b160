"""Who takes part, in the order of the tables."""

from __future__ import annotations

from bench.index.contender import Contender
from bench.index.ours import Compact, Ours, Shards
from bench.index.peers import InfiniGram, RustyDawg, Tokengrams
from bench.index.sorters import Libsais16, Pydivsufsort

ALL: tuple[Contender, ...] = (
    Ours(),
    Compact(),
    Shards(),
    Tokengrams(),
    InfiniGram(),
    RustyDawg(),
    Pydivsufsort(),
    Libsais16(),
)
BY_NAME = {contender.name: contender for contender in ALL}
