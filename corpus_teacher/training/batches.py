"""Batches of a distillation: windows of tokens with all that can be said of them ahead, in the loader's workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import permute_targets
from corpus_teacher.targets import SoftTargets
from corpus_teacher.teacher import CorpusTeacher, TeacherCollator


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
        Also tell the distinct continuations of each context, for policies that ask.
    permute : bool
        Give each position the corpus' target of another one of its batch: a control.

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
        permute: bool = False,
    ) -> None:
        if permute and form != "flat":
            raise ConfigError("permuted targets are flat ones: leave the mixed form")
        self.collate = TeacherCollator(teacher, form, distinct=distinct)
        self.cached = cached
        self.permute = permute

    def __call__(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """As `TeacherCollator`, with "neural_targets" beside "soft_targets" where there is a cache."""
        batch = self.collate(windows)
        if self.cached is not None:
            begin = time.perf_counter()
            batch["neural_targets"] = self.cached(batch["input_ids"])
            batch["teacher_s"] = batch.get("teacher_s", 0.0) + time.perf_counter() - begin
        if self.permute and "soft_targets" in batch:
            # the same text in the same batch is permuted alike, whatever came before
            batch["soft_targets"] = permute_targets(batch["soft_targets"], seed=int(batch["input_ids"].sum()))
        return batch
