"""Timed passes over a batch of work, alone and on two threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from bench.index.contender import Rate

Work = Callable[[], object]


def pass_rates(one_pass: Work, positions: int, *, runs: int, least_s: float) -> list[Rate]:
    """Runs of as many passes over so many positions as fill least_s, one pass at least; one before them isn't timed."""
    one_pass()
    rates = []
    for _ in range(runs):
        passes, started, started_cpu = 0, time.perf_counter(), time.process_time()
        while passes == 0 or time.perf_counter() - started < least_s:
            one_pass()
            passes += 1
        took = time.perf_counter() - started
        rates.append(Rate(passes * positions / took, (time.process_time() - started_cpu) / took))
    return rates


def one_and_two(whole: Work, halves: Sequence[Work], positions: int, *, runs: int) -> tuple[list[Rate], list[Rate]]:
    """One Python thread over all the work, and a thread for each half, in turns: (one's rates, two's rates)."""
    whole()
    started = time.perf_counter()
    whole()
    # Long enough that the scheduler has spread the threads, which takes it some 10 ms.
    passes = max(1, round(0.5 / (time.perf_counter() - started)))

    def repeat(work: Work) -> None:
        for _ in range(passes):
            work()

    found: tuple[list[Rate], list[Rate]] = ([], [])
    for _ in range(runs):
        for parts, rates in zip(([whole], halves), found, strict=True):
            threads = [threading.Thread(target=repeat, args=(part,)) for part in parts]
            started, started_cpu = time.perf_counter(), time.process_time()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - started
            rates.append(Rate(passes * positions / took, (time.process_time() - started_cpu) / took / len(parts)))
    return found
