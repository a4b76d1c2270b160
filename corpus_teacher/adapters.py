"""The corpus teacher in other people's loops: mixins for the Trainers of transformers and TRL, and for Lightning.

Neither package is imported here. A mixin stands before the class that it changes::

    class Student(TeachingModule, lightning.LightningModule): ...      # batches of TeacherCollator
    class Taught(TeachingTrainer, trl.SFTTrainer): ...                 # batches of the trainer's own collator

Both take `blended_cross_entropy`, exact over the vocabulary. For all that this project can do there is
`corpus_teacher.training.DistillationTrainer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.losses import (
    IGNORE_INDEX,
    BlendedLoss,
    blended_cross_entropy,
    label_smoothing_cross_entropy,
    shift_labels,
)
from corpus_teacher.targets import SoftTargets
from corpus_teacher.teacher import CorpusTeacher

_OURS = frozenset({"soft_targets", "teacher_s", "distinct", "evidence"})
"""What `TeacherCollator` adds to a batch."""
_NOT_THE_MODELS = _OURS | {"labels"}
_KEPT = ("position", "positions", "starts_document", "document_ids", "seq_lengths")
"""Columns of datasets that `TeacherCollator` reads and models don't."""


class TeachingModule:
    """For a LightningModule whose `student` is a causal language model: steps of training and validation.

    Attributes
    ----------
    student : Module
        Called as ``student(input_ids=…).logits``, with the batch's attention_mask and position_ids where it has them;
        the subclass makes it, and has `configure_optimizers`.
    corpus_weight : float
        Share of the corpus teacher beside the hard label.

    Notes
    -----
    The batches are those of `TeacherCollator`, given to a DataLoader as collate_fn; Lightning moves them, the soft
    targets included. Logged: loss, hard_nats, corpus_nats; in validation held_out_nats, the plain cross-entropy.
    """

    student: Any
    corpus_weight: float = 0.5

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Blend of label and corpus, mean over the positions, nats."""
        if "soft_targets" not in batch:
            raise InputError("the batch has no soft_targets: give the loader TeacherCollator(teacher) as collate_fn")
        logits = self._logits(batch)
        labels = shift_labels(batch["labels"])
        told = blended_cross_entropy(logits, labels, batch["soft_targets"], corpus_weight=self.corpus_weight)
        self._tell({"loss": told.loss.detach(), "hard_nats": told.hard, "corpus_nats": told.soft}, batch)
        return told.loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy to the data, nats a token; no teacher is needed."""
        logits = self._logits(batch)
        nats = label_smoothing_cross_entropy(logits, shift_labels(batch["labels"]))
        self._tell({"held_out_nats": nats.detach()}, batch)
        return nats

    def _logits(self, batch: Mapping[str, Any]) -> Tensor:
        columns = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
        logits: Tensor = self.student(**columns).logits
        return logits

    def _tell(self, values: dict[str, Tensor], batch: Mapping[str, Any]) -> None:
        self.log_dict(values, batch_size=len(batch["input_ids"]))  # type: ignore[attr-defined]


class TeachingTrainer:
    """For `transformers.Trainer` and what is made of it, such as TRL's SFTTrainer: the loss while training.

    Parameters
    ----------
    *args, **options
        Of the trainer.
    corpus_teacher : CorpusTeacher
        With leave_out=None for text that isn't in its index, which text for fine-tuning seldom is. Of text that is,
        documents are left out where the text is found in the index; give `TeacherCollator` as data_collator, and
        datasets with the columns "position" or "starts_document", where it is known beforehand.
    corpus_weight : float
        Share of the teacher at the tokens that have a label.
    starts_document : bool
        Whether rows, and the examples that are packed into them, begin where documents begin: True for examples, False
        for windows of packed text.

    Raises
    ------
    ConfigError
        A weight outside of [0, 1], or packing that cuts examples anywhere beside starts_document=True.

    Notes
    -----
    The evaluation is the trainer's own. Padding on either side, packed rows (packing=True) and flattened batches
    (padding_free=True) are read by their masks and position ids: the target at a token is that of its example alone.
    Metrics that TRL takes inside of its own loss (token accuracy, entropy) aren't logged. Without `TeacherCollator`
    the teacher runs in the main process: its time is a part of the step's.
    """

    def __init__(
        self,
        *args: Any,
        corpus_teacher: CorpusTeacher,
        corpus_weight: float = 0.5,
        starts_document: bool = True,
        **options: Any,
    ) -> None:
        if not 0 <= corpus_weight <= 1:
            raise ConfigError(f"corpus_weight is {corpus_weight!r}: give a number from 0 to 1")
        super().__init__(*args, **options)
        settings: Any = getattr(self, "args", None)
        strategy = getattr(settings, "packing_strategy", None) if getattr(settings, "packing", False) else None
        if strategy not in (None, "bfd", "bfd_truncate") and starts_document:
            raise ConfigError(
                f"packing_strategy {strategy!r} cuts examples, so that rows begin anywhere in them: give "
                "starts_document=False, or packing_strategy='bfd'"
            )
        self.corpus_teacher = corpus_teacher
        self.corpus_weight = corpus_weight
        self.starts_document = starts_document
        # rows of the strategy "wrapped" are told apart by the token that ends examples, if by anything
        self._end_token = getattr(getattr(self, "processing_class", None), "eos_token_id", None) if strategy else None

    def _set_signature_columns_if_needed(self) -> None:
        """Keep what `TeacherCollator` reads of a dataset when the trainer drops columns."""
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        known: list[str] = self.__dict__["_signature_columns"] or []
        self._signature_columns = [*known, *(name for name in _KEPT if name not in known)]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The blend, divided by the labels of the whole step where the trainer counts them; nats."""
        if not model.training:
            evaluate: Any = super().compute_loss  # type: ignore[misc]
            plain = {name: value for name, value in inputs.items() if name not in _OURS}
            return evaluate(model, plain, return_outputs, num_items_in_batch)
        told, outputs = self.teach(model, inputs)
        if num_items_in_batch is None:
            loss = told.loss / (inputs["labels"][:, 1:] != IGNORE_INDEX).sum().clamp_min(1)
        else:
            loss = told.loss / torch.as_tensor(num_items_in_batch, device=told.loss.device).clamp_min(1)
            if self.args.average_tokens_across_devices:  # type: ignore[attr-defined]
                loss = loss * self.accelerator.num_processes  # type: ignore[attr-defined]
        return (loss, outputs) if return_outputs else loss

    def teach(self, model: Any, inputs: Mapping[str, Any]) -> tuple[BlendedLoss, Any]:
        """The sum of the blend over a batch, and the student's outputs."""
        targets = inputs.get("soft_targets")
        if targets is None:
            targets = self._ask(inputs)
        outputs = model(
            **{name: value for name, value in inputs.items() if name not in _NOT_THE_MODELS}, use_cache=False
        )
        labels = shift_labels(inputs["labels"])
        told = blended_cross_entropy(
            outputs.logits, labels, targets.to(labels.device), corpus_weight=self.corpus_weight, reduction="sum"
        )
        return told, outputs

    def _ask(self, inputs: Mapping[str, Any]) -> SoftTargets:
        if self.starts_document:
            return self.corpus_teacher(inputs, starts_document=True)
        ids = inputs["input_ids"]
        starts = torch.zeros_like(ids, dtype=torch.bool)
        if self._end_token is not None:
            starts[:, 1:] = ids[:, :-1] == self._end_token
        return self.corpus_teacher(inputs, starts_document=starts)
