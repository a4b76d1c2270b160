"""One training from start to end, or from its last checkpoint to the end; and what came of it.

Two runs with one seed have the same first weights and the same order of data, whatever they are trained on: the seed
alone decides both.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import transformers

from corpus_teacher.errors import ConfigError, TrainingInterrupted
from corpus_teacher.files import held_folder, write_json
from corpus_teacher.neural.pretrained import quiet
from corpus_teacher.on_policy import OnPolicy
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.teaching import Teachers
from corpus_teacher.training.callbacks import BeginCallback, InterruptCallback, ProgressCallback
from corpus_teacher.training.config import DistillationConfig
from corpus_teacher.training.trainer import AskedTeacher, DistillationTrainer, one_value


class Windows(Protocol):
    """A map-style dataset of windows of one length, as `corpus_teacher.data.TokenWindows` is one."""

    def __len__(self) -> int:
        """Number of windows."""

    def __getitem__(self, number: int, /) -> Mapping[str, Any]:
        """A mapping with "input_ids" of shape (T,)."""


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Attributes
    ----------
    held_out_nats : float
        Cross-entropy to the held-out data at the end, nats/token.
    bits_per_byte : float or None
        The same in bits per UTF-8 byte, where the bytes are known.
    history : list of dict
        step, tokens, held_out_nats (and bits_per_byte) at each evaluation.
    logs : list of dict
        step, and what the trainer logged between: loss, its parts, shares of the reasons, …
    steps, tokens : int
        Of the whole run.
    seconds, tokens_per_s : float
        Of the steps of this process since it was started (or resumed), without evaluation.
    teacher_s, loader_s : float
        As in `StepClock`.
    teacher_share : float
        Share of the time of the steps that the teachers cost: stalls (the wait for batches and the targets that workers
        or a thread make of them) and live teachers. 0 without a soft teacher.
    """

    held_out_nats: float
    bits_per_byte: float | None
    history: list[dict[str, float]]
    logs: list[dict[str, float]]
    steps: int
    tokens: int
    seconds: float
    tokens_per_s: float
    teacher_s: float
    loader_s: float
    teacher_share: float


def is_main_process() -> bool:
    """Whether this is the process that writes and prints: the first of torchrun's, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def warn(notice: str) -> None:
    """A notice as a warning of Python's."""
    warnings.warn(notice, stacklevel=3)


def train_student(
    config: DistillationConfig,
    student: transformers.PreTrainedModel,
    train: Windows,
    held_out: Windows,
    *,
    teacher: CorpusTeacher | None = None,
    neural_teacher: AskedTeacher | None = None,
    self_teacher: AskedTeacher | None = None,
    teachers: Teachers | None = None,
    on_policy: OnPolicy | None = None,
    held_out_bytes: int | None = None,
    form: str = "flat",
    resume: bool = False,
    progress: Callable[[int, float | None], None] | None = None,
    callbacks: list[transformers.TrainerCallback] | None = None,
    notices: Callable[[str], None] = warn,
) -> TrainingResult:
    """Train a student and evaluate it on held-out text.

    Parameters
    ----------
    config : DistillationConfig
        What it learns from, and how; checkpoints go to its output_dir, training.json with the settings too.
    student : PreTrainedModel
        Trained in place.
    train, held_out : Windows
        Of windows, as `corpus_teacher.data.TokenWindows` gives them; all of one length.
    teacher, neural_teacher, self_teacher, teachers, on_policy, held_out_bytes, form
        As in `DistillationTrainer`.
    resume : bool
        Go on from the newest whole checkpoint under output_dir, or from the beginning where there is none yet: the rest
        of the run is as if it had never stopped. Where the last step is done, nothing is trained.
    progress : callable, optional
        Called after every step with its number and the last held-out loss.
    callbacks : list of TrainerCallback, optional
        Of transformers.
    notices : callable, optional
        Takes sentences about what isn't as one may think: a checkpoint that was passed over. They are warnings by
        default.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ConfigError
        Settings that don't fit together, a damaged checkpoint.
    FolderInUseError
        Another process trains in output_dir.
    OutputError
        An output_dir that can't be written to.
    TrainingInterrupted
        Ctrl-C; a checkpoint has been written.
    """
    held = held_folder(str(config.output_dir), "being trained in") if is_main_process() else nullcontext()
    with held:
        return train_here(
            config,
            student,
            train,
            held_out,
            teachers=one_value(teachers, teacher, neural_teacher, self_teacher),
            on_policy=on_policy,
            held_out_bytes=held_out_bytes,
            form=form,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
            notices=notices,
        )


def train_here(
    config: DistillationConfig,
    student: transformers.PreTrainedModel,
    train: Windows,
    held_out: Windows,
    *,
    teachers: Teachers,
    on_policy: OnPolicy | None,
    held_out_bytes: int | None,
    form: str,
    resume: bool,
    progress: Callable[[int, float | None], None] | None,
    callbacks: list[transformers.TrainerCallback] | None,
    notices: Callable[[str], None],
    begin: Callable[[], None] | None = None,
) -> TrainingResult:
    """`train_student` in a folder that the caller holds; `begin` is called when the first step begins."""
    out = Path(str(config.output_dir))
    interrupt = InterruptCallback()

    def began() -> None:
        described = {**trainer.args.to_dict(), "teacher": trainer.teacher.describe() if trainer.teacher else None}
        write_json(out / "training.json", described, indent=2, default=str)
        if begin is not None:
            begin()

    rows = config.per_device_train_batch_size * max(1, config.world_size)
    if len(train) < rows:
        raise ConfigError(
            f"there are {len(train)} windows to train on and a batch takes {rows}: give more text, shorter windows, or "
            "a smaller per_device_train_batch_size"
        )
    trainer = DistillationTrainer(
        student,
        config,
        teachers=teachers,
        on_policy=on_policy,
        held_out_bytes=held_out_bytes,
        form=form,
        train_dataset=train,
        eval_dataset=held_out,
        callbacks=[
            *(callbacks or []), *([ProgressCallback(progress)] if progress else []), interrupt, BeginCallback(began)
        ],
    )  # fmt: skip
    for printer in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(printer)
    try:
        with quiet() if config.disable_tqdm else nullcontext():
            trainer.train(resume_from_checkpoint=trainer.newest_checkpoint(notices) if resume else None)
    finally:
        interrupt.release()
    if interrupt.interrupted:
        raise TrainingInterrupted(trainer.state.global_step, out / f"checkpoint-{trainer.state.global_step}")
    return _result(trainer, len(train[0]["input_ids"]))


def _result(trainer: DistillationTrainer, length: int) -> TrainingResult:
    """What came of it, after a last evaluation where there was none."""
    config, steps = trainer.args, trainer.state.global_step
    tokens_a_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size * length
    if not any(entry["step"] == steps for entry in trainer.state.log_history if "eval_loss" in entry):
        trainer.evaluate()
    history = [
        {
            "step": entry["step"],
            "tokens": entry["step"] * tokens_a_step,
            "held_out_nats": entry["eval_loss"],
            **({"bits_per_byte": entry["eval_bits_per_byte"]} if "eval_bits_per_byte" in entry else {}),
        }
        for entry in trainer.state.log_history
        if "eval_loss" in entry
    ]
    clock = trainer.clock
    cost = clock.loader_s + clock.asked_s
    return TrainingResult(
        held_out_nats=history[-1]["held_out_nats"],
        bits_per_byte=history[-1].get("bits_per_byte"),
        history=history,
        logs=[entry for entry in trainer.state.log_history if "loss" in entry],
        steps=steps,
        tokens=steps * tokens_a_step,
        seconds=clock.step_s,
        tokens_per_s=clock.tokens / clock.step_s if clock.step_s else 0.0,
        teacher_s=clock.teacher_s,
        loader_s=clock.loader_s,
        teacher_share=cost / clock.step_s if clock.step_s and trainer.objective.soft else 0.0,
    )
