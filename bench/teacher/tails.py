"""What the slowest position costs, beside the median one.

A call for one position costs mostly the call. So each of many positions is asked for by a call of its own, in so many
copies that the call hardly counts, and what it takes beyond the median call, divided by the copies, is what the
position costs beyond the median position; that one is the time of large batches, divided. The first call for a
position (which may make a shortlist that is kept) is told apart from later ones, of which the shortest counts: it is
the one that nothing else on the machine disturbed. The slowest are asked more often. All is CPU time, so that a busy
machine doesn't look like a slow position.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LEAST = 20
"""Positions that are asked whatever the budget."""
ROUNDS = 8
"""How often the slowest, which then are others, are asked again."""


class Tail(NamedTuple):
    """Microseconds a position: p50, p99, max; first: max of first calls; call: the median call, copies and all."""

    p50_us: float
    p99_us: float
    max_us: float
    first_us: float
    call_us: float
    asked: int
    slowest: int


def tail(
    ask: Callable[[int], Any], num: int, median_us: float, *, copies: int, budget_s: float, repeats: int = 3
) -> Tail:
    """The tail of the calls ask(0) … ask(num − 1), as many as fit the budget, each for so many copies of a position.

    median_us: of a position in a batch.
    """

    def took_us(i: int) -> float:
        started = time.thread_time()
        ask(i)
        return (time.thread_time() - started) * 1e6

    ask(0)
    first, later = np.full(num, np.nan), np.full(num, np.nan)
    begun = time.perf_counter()
    for i in range(num):
        if i >= LEAST and time.perf_counter() - begun > budget_s:
            break
        first[i] = took_us(i)
        later[i] = min(took_us(i) for _ in range(repeats))
    usual = np.argsort(later)[: int(np.isfinite(later).sum())]  # not a number is last
    usual = usual[max(0, usual.size // 2 - LEAST // 2) :][:LEAST]
    for _ in range(ROUNDS):  # were they slow, or was the machine busy? The usual ones are asked as often
        for i in {*np.argsort(-np.nan_to_num(later))[:LEAST].tolist(), *usual.tolist()}:
            later[i] = min(later[i], *(took_us(i) for _ in range(4 * repeats)))
    call = float(np.median(later[usual]))
    beyond = (later - call) / copies
    return Tail(
        p50_us=median_us,
        p99_us=median_us + float(np.nanpercentile(beyond, 99)),
        max_us=median_us + float(np.nanmax(beyond)),
        first_us=median_us + float(np.nanmax(first) - call),
        call_us=call,
        asked=int(np.isfinite(later).sum()),
        slowest=int(np.nanargmax(later)),
    )
