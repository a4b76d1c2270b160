"""Batches of a distillation: windows of tokens with all that can be said of them ahead, in the loader's workers.

Without workers a thread says it: the kernels of the index release the GIL, so the targets of the next batch are made
while the student computes, as long as there is a core, or an accelerator, that does the computing meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch.utils.data import get_worker_info

from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import permute_targets
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher, TeacherCollator
from corpus_teacher.teaching import as_teacher

TAUGHT = "taught"
"""The key of what a thread is still making of a batch; `finish` puts it into the batch."""


class DistillationCollator:
    """Windows → a batch with the targets of the corpus teacher, and of a cached neural teacher.

    Parameters
    ----------
    teacher : CorpusTeacher, optional
    cached : callable, optional
        Input ids, (B, T) → `SoftTargets` on the CPU: a `CachedTeacher`. (A live model is asked where the student is.)
    form : {"flat", "mixed"}
        Of the corpus' targets.
    distinct : bool
        Also report the distinct continuations of each context, as "distinct".
    evidence : iterable of str
        What policies ask for (`CorpusTeacher.evidence`), as "evidence".
    permute : bool
        Give each position the corpus' target of another one of its batch: a control.
    ahead : bool
        In the main process let a thread ask the teachers; the batch is complete after `finish`. For loops that fetch a
        batch before they need it, as accelerate's do. In a loader's worker it changes nothing.
    pad_token, pad_to_multiple_of, end_token
        As in `TeacherCollator`.

    Raises
    ------
    ConfigError
        Another form, or permuted targets in mixed form.
    """

    def __init__(
        self,
        teacher: CorpusTeacher | None = None,
        *,
        cached: Callable[[Any], SoftTargets] | None = None,
        form: str = "flat",
        distinct: bool = False,
        evidence: Iterable[str] = (),
        permute: bool = False,
        ahead: bool = False,
        pad_token: int = 0,
        pad_to_multiple_of: int | None = None,
        end_token: int | None = None,
    ) -> None:
        if permute and form != "flat":
            raise ConfigError("permuted targets are flat ones: leave the mixed form")
        self.taught = TeacherCollator(
            teacher,
            form,
            distinct=distinct,
            evidence=evidence,
            pad_token=pad_token,
            pad_to_multiple_of=pad_to_multiple_of,
            end_token=end_token,
        )
        self.cached = as_teacher(cached, "cached")
        self.permute = permute
        self.ahead = ahead
        self._thread: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_thread": None}

    def __call__(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """As `TeacherCollator`, with "neural_targets" beside "soft_targets" where there is a cache."""
        batch, facts = self.taught.collate(windows)
        if self.taught.teacher is None and self.cached is None:
            return batch
        if not self.ahead or get_worker_info() is not None:
            return batch | self._teach(batch, facts)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="teacher")
        return batch | {TAUGHT: self._thread.submit(self._teach, dict(batch), facts)}

    def close(self) -> None:
        """End the thread, if there is one; the next batch begins another."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def _teach(self, batch: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
        """What the teachers say of a batch, and how long it took them."""
        told: dict[str, Any] = {"teacher_s": 0.0} | self.taught.said(batch, facts)
        if self.cached is not None:
            begin = time.perf_counter()
            told["neural_targets"] = self.cached(batch, **facts)
            told["teacher_s"] += time.perf_counter() - begin
        if self.permute and "soft_targets" in told:
            # the same text in the same batch is permuted alike, whatever came before
            told["soft_targets"] = permute_targets(told["soft_targets"], seed=int(batch["input_ids"].sum()))
        return told


def finish(batch: dict[str, Any]) -> dict[str, Any]:
    """Wait for what a thread makes of a batch of `DistillationCollator`, and put it in; any other batch stays as it is.

    Raises
    ------
    InputError, QueryError, CacheError
        What the teachers have raised.
    """
    told: Future[dict[str, Any]] | None = batch.pop(TAUGHT, None)
    if told is not None:
        batch.update(told.result())
    return batch
