"""The queue in front of the engine: requests of many clients are joined, and who comes when it is full is sent away.

Naively: answer each request in a thread. Here at most `threads` calls of the engine run at once, and while they do,
what arrives waits in one bounded queue; a thread that becomes free takes the oldest request, and with it all others
that want the same (the same teacher, say), up to a number of positions. So nothing is delayed for the sake of a batch,
and batches grow by themselves when there is more to do than hands. The kernels release the GIL.

What takes microseconds is answered at once instead, by the event loop: to hand it to a thread and back costs more, and
each handing over waits up to an interval of the interpreter's lock. Where one takes long all the same (its part of the
index isn't in memory) the next ones go to the threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from corpus_teacher.serve.counters import Counters
from corpus_teacher.serve.limits import Limits, RefusedRequest

_RETRY_AFTER_S = 1
_LONG_S, _IN_THREADS_S = 0.005, 0.1  # what is too long for the event loop, and for how long threads take over then


async def within(awaited: Awaitable[Any], seconds: float) -> Any:
    """`asyncio.wait_for`, without the task that it makes before Python 3.12.

    Raises
    ------
    asyncio.TimeoutError
    """
    if sys.version_info < (3, 11):
        return await asyncio.wait_for(awaited, seconds)
    async with asyncio.timeout(seconds):
        return await awaited


@dataclass(eq=False)
class _Waiting:
    """A request that waits: what it is joined by, what is asked, and where the answer goes."""

    key: Hashable
    answer: Callable[[Sequence[Any]], Sequence[Any]]
    asked: Any
    positions: int
    future: asyncio.Future[Any]


class Joiner:
    """Calls of the engine in worker threads, joined and bounded; of one event loop.

    Parameters
    ----------
    threads : int
        Calls at once.
    limits : Limits
    counters : Counters
    """

    def __init__(self, threads: int, limits: Limits, counters: Counters) -> None:
        self.limits = limits
        self.counters = counters
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="engine")
        self._waiting: deque[_Waiting] = deque()
        self._positions = 0
        self._running = 0
        self._at_once_from = 0.0

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    async def ask(
        self,
        key: Hashable,
        answer: Callable[[Sequence[Any]], Sequence[Any]],
        asked: Any,
        positions: int = 1,
        is_small: bool = False,
    ) -> Any:
        """The answer to one of possibly many joined questions.

        Parameters
        ----------
        key : hashable
            Questions of one key may be answered together; None: by itself.
        answer : callable
            A list of questions → a list of their answers, in a worker thread.
        asked : object
            The question.
        positions : int
            What it costs.
        is_small : bool
            Whether the answer takes microseconds.

        Raises
        ------
        RefusedRequest
            429 where too much waits already, 503 where it waited too long.
        """
        limits = self.limits
        if is_small and time.perf_counter() >= self._at_once_from:
            return self._at_once(answer, asked, positions)
        if self._running >= self.threads and (
            len(self._waiting) >= limits.waiting_requests or self._positions + positions > limits.waiting_positions
        ):
            self.counters.refused.labels("full").inc()
            raise RefusedRequest(
                f"{len(self._waiting)} requests of {self._positions:,} positions wait already: come back later",
                status=429,
                retry_after_s=_RETRY_AFTER_S,
            )
        one = _Waiting(key, answer, asked, positions, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._positions += positions
        self._dispatch()
        try:
            return await within(one.future, limits.request_s)
        except asyncio.TimeoutError:
            self.counters.refused.labels("slow").inc()
            raise RefusedRequest(
                f"no answer after {limits.request_s:g} s: ask for fewer positions, or come back later",
                status=503,
                retry_after_s=_RETRY_AFTER_S,
            ) from None
        finally:
            if one in self._waiting:  # its client went away, or lost patience
                self._waiting.remove(one)
                self._positions -= positions

    async def run(self, function: Callable[..., Any], *arguments: Any, positions: int = 1) -> Any:
        """A function's answer, from a worker thread; bounded as `ask`, joined with nothing."""
        return await self.ask(None, lambda questions: [function(*one) for one in questions], arguments, positions)

    def _at_once(self, answer: Callable[[Sequence[Any]], Sequence[Any]], asked: Any, positions: int) -> Any:
        """The answer to one question, from this thread."""
        self.counters.batch_requests.observe(1)
        self.counters.positions.inc(positions)
        begin = time.perf_counter()
        try:
            return answer([asked])[0]
        finally:
            end = time.perf_counter()
            self.counters.engine_s.inc(end - begin)
            if end - begin > _LONG_S:
                self._at_once_from = end + _IN_THREADS_S

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown(cancel_futures=True)

    def _dispatch(self) -> None:
        """Give free threads what waits longest, joined."""
        while self._waiting and self._running < self.threads:
            batch = [self._waiting.popleft()]
            positions = batch[0].positions
            if batch[0].key is not None:
                for other in [one for one in self._waiting if one.key == batch[0].key]:
                    if positions + other.positions > self.limits.batch_positions:
                        break
                    self._waiting.remove(other)
                    batch.append(other)
                    positions += other.positions
            self._positions -= positions
            self._running += 1
            self.counters.batch_requests.observe(len(batch))
            self.counters.positions.inc(positions)
            task = asyncio.get_running_loop().run_in_executor(self._pool, self._answered, batch)
            task.add_done_callback(lambda done, batch=batch: self._settle(batch, done))  # type: ignore[misc]

    def _answered(self, batch: list[_Waiting]) -> list[Any]:
        """In a worker thread: the answers, or their errors; of a joined batch that fails each one by itself."""
        begin = time.perf_counter()
        try:
            return list(batch[0].answer([one.asked for one in batch]))
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [answer for one in batch for answer in self._answered([one])]
        finally:
            self.counters.engine_s.inc(time.perf_counter() - begin)

    def _settle(self, batch: list[_Waiting], done: asyncio.Future[list[Any]]) -> None:
        self._running -= 1
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        answers: Sequence[Any] = [error] * len(batch) if error is not None else done.result()
        for one, answer in zip(batch, answers, strict=True):
            if one.future.done():
                continue
            with contextlib.suppress(asyncio.InvalidStateError):
                if isinstance(answer, BaseException):
                    one.future.set_exception(answer)
                else:
                    one.future.set_result(answer)
        self._dispatch()
