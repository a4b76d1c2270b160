"""Asking several shards at once, wherever they are open: the one seam between an index and its shards.

A question is a function of a shard and its arguments, all of which pickle. It runs where the shard is open: here, in
threads, or in another process or on another machine, of which a `ShardHost` knows how to reach it. So a shard
elsewhere runs the same code on the same files, and its answers are the local ones bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from corpus_index._kernels.jit import processors
from corpus_index.core.matching import Matcher

_Answer = TypeVar("_Answer")


class ShardHost(Protocol):
    """Whoever reaches shards that are open elsewhere."""

    def ask(
        self, function: Callable[..., Any], numbers: Sequence[int], arguments: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """`function(shard, *arguments[i])` where shard numbers[i] is open, for all at once; the answers, in order.

        The function and its arguments pickle, and have no effects, so a question may be asked again. Exceptions of
        the function are raised here.
        """


class Elsewhere(Protocol):
    """A shard that is open elsewhere, as `ask_all` sees it."""

    host: ShardHost
    number: int


def ask_all(
    function: Callable[..., _Answer],
    shards: Sequence[Matcher],
    arguments: Sequence[tuple[Any, ...]] | None = None,
) -> list[_Answer]:
    """Ask some shards at once; their answers, in order.

    Shards that are open here are asked in as many threads as there are processors, since kernels release the GIL. The
    threads end with the call, so that a process may be forked at any time.

    Parameters
    ----------
    function : callable
        Of a shard, and more arguments. It pickles: a function of a module, or a `functools.partial` of one.
    shards : sequence of Matcher
        All open here, or all of one host.
    arguments : sequence of tuple, optional
        The further arguments for each shard.
    """
    given = [()] * len(shards) if arguments is None else list(arguments)
    host = getattr(shards[0], "host", None) if shards else None
    if host is not None:
        return list(host.ask(function, [shard.number for shard in shards], given))  # type: ignore[attr-defined]
    workers = min(processors(), len(shards))
    if workers < 2:
        return [function(shard, *rest) for shard, rest in zip(shards, given, strict=True)]
    with ThreadPoolExecutor(workers, thread_name_prefix="shard") as pool:
        return list(pool.map(lambda pair: function(pair[0], *pair[1]), zip(shards, given, strict=True)))
