"""Training a student: a Hugging Face causal model from random weights, on hard labels, soft targets, or their
blend.

`DistillationTrainer` is transformers' Trainer with another loss, so its checkpoints, exact resume, mixed
precision, gradient accumulation, logging and torchrun are those of transformers. What is ours: the loss of
the arm, batches that carry soft targets, a held-out loss that is always the plain cross-entropy to the data
(whatever the arm is trained on), and a clock that tells where the time of a step went.

Two runs with one seed have the same first weights and the same order of data, whatever their arms: the seed
alone decides both.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor
from transformers.trainer_utils import EvalLoopOutput, get_last_checkpoint

from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import (
    IGNORE_INDEX,
    blended_cross_entropy,
    label_smoothing_cross_entropy,
    shift_labels,
)
from corpus_teacher.targets import SoftTargets
from corpus_teacher.teacher import CorpusTeacher, TeacherCollator

ARMS = ("hard", "corpus", "label-smoothing")
"""What a student may be trained on."""

DEFAULT_STUDENT = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
"""A student of a million parameters, most of them the embeddings of its tokens."""


class Windows(Protocol):
    """A map-style dataset of windows of one length, as `corpus_teacher.data.TokenWindows` is one."""

    def __len__(self) -> int:
        """Number of windows."""

    def __getitem__(self, number: int, /) -> Mapping[str, Any]:
        """A mapping with "input_ids" of shape (T,)."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a student is trained.

    Parameters
    ----------
    arm : {"hard", "corpus", "label-smoothing"}
        The target of every position: the label; ``(1 − corpus_weight) · label + corpus_weight · teacher``; or
        ``(1 − epsilon) · label + epsilon · uniform``.
    corpus_weight : float
        Share of the corpus teacher in the arm "corpus", 0 to 1.
    epsilon : float
        Share of the uniform distribution in the arm "label-smoothing", 0 to 1.
    steps : int
        Optimizer steps.
    batch_size : int
        Rows on each device in each pass; times `accumulation` and devices it is the batch of a step.
    accumulation : int
        Passes a step. The loss is a mean over all counted tokens of a step, however they fall into passes.
    learning_rate, weight_decay : float
        Of AdamW with betas 0.9 and 0.95; gradients are clipped at norm 1.
    warmup_steps : int
        Of linear warm-up; a cosine to 0 follows.
    seed : int
        Of the data order. (The first weights are those of the student that is given.)
    eval_every, save_every : int
        Steps between evaluations and between checkpoints; 0: an evaluation at the end only, no checkpoints.
    num_workers : int
        Processes that load and teach ahead; 0: the main process does it between steps.
    bf16 : bool
        Mixed precision.
    arguments : dict
        Further settings of `transformers.TrainingArguments`, by their own names.

    Raises
    ------
    ConfigError
        A setting out of range.
    """

    arm: str = "corpus"
    corpus_weight: float = 0.5
    epsilon: float = 0.1
    steps: int = 1000
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 50
    seed: int = 0
    eval_every: int = 100
    save_every: int = 0
    num_workers: int = 0
    bf16: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ConfigError(f"arm is {self.arm!r}: give one of {', '.join(ARMS)}")
        for name in ("corpus_weight", "epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number from 0 to 1")
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("accumulation", 1),
            ("warmup_steps", 0),
            ("eval_every", 0),
            ("save_every", 0),
            ("num_workers", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: give {least} or more")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}: give a positive number")

    def training_arguments(self, out: str | Path) -> transformers.TrainingArguments:
        """The settings in the words of transformers, for checkpoints under `out`."""
        settings: dict[str, Any] = {
            "output_dir": str(out),
            "max_steps": self.steps,
            "per_device_train_batch_size": self.batch_size,
            "per_device_eval_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulation,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "adam_beta2": 0.95,
            "max_grad_norm": 1.0,
            "lr_scheduler_type": "cosine",
            "warmup_steps": self.warmup_steps,
            "seed": self.seed,
            "data_seed": self.seed,
            "bf16": self.bf16,
            "eval_strategy": "steps" if self.eval_every else "no",
            "eval_steps": self.eval_every or None,
            "save_strategy": "steps" if self.save_every else "no",
            "save_steps": self.save_every or 500,
            "logging_steps": self.eval_every or max(1, self.steps // 20),
            "dataloader_num_workers": self.num_workers,
            "dataloader_persistent_workers": self.num_workers > 0,
            "dataloader_pin_memory": torch.cuda.is_available(),
            "dataloader_drop_last": True,
            "remove_unused_columns": False,
            "prediction_loss_only": True,
            "report_to": "none",
            "disable_tqdm": True,
        }
        return transformers.TrainingArguments(**{**settings, **self.arguments})


@dataclass
class StepClock:
    """Where the time of the optimizer steps went, in seconds; evaluation and checkpoints are not in it.

    Attributes
    ----------
    steps, tokens : int
        Steps timed, and tokens that this process was given in them.
    step_s : float
        From asking for the batches of a step to the end of its update.
    loader_s : float
        The part of it spent waiting for batches; in-process teaching is in it.
    teacher_s : float
        What the teacher took, wherever it ran.
    """

    steps: int = 0
    tokens: int = 0
    step_s: float = 0.0
    loader_s: float = 0.0
    teacher_s: float = 0.0
    _began: float = 0.0


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Attributes
    ----------
    arm : str
        What the student was trained on.
    held_out_nats : float
        Cross-entropy to the held-out data at the end, nats/token.
    bits_per_byte : float or None
        The same in bits per UTF-8 byte, where the bytes are known.
    history : list of dict
        step, tokens, held_out_nats (and bits_per_byte) at each evaluation.
    steps, tokens : int
        Of the whole run.
    seconds, tokens_per_s : float
        Of the steps of this process since it was started (or resumed), without evaluation.
    teacher_s, loader_s : float
        As in `StepClock`.
    teacher_share : float
        Share of the time of the steps that the teacher cost: its own time where it ran in the main process,
        the wait for batches where it ran in workers.
    """

    arm: str
    held_out_nats: float
    bits_per_byte: float | None
    history: list[dict[str, float]]
    steps: int
    tokens: int
    seconds: float
    tokens_per_s: float
    teacher_s: float
    loader_s: float
    teacher_share: float


def make_student(
    config: str | Mapping[str, Any] | transformers.PretrainedConfig | None = None,
    *,
    vocab_size: int,
    seed: int = 0,
) -> transformers.PreTrainedModel:
    """Make a causal language model with random weights.

    Parameters
    ----------
    config : str, mapping or PretrainedConfig, optional
        A model type of transformers ("gpt2"), a folder with a config.json, a mapping with "model_type" and
        any of its settings, or a ready config; by default `DEFAULT_STUDENT`, a small Llama.
    vocab_size : int
        V of the index.
    seed : int
        Of the weights; the global random state stays as it is.

    Returns
    -------
    PreTrainedModel

    Raises
    ------
    ConfigError
        A config that transformers doesn't know or can't make a causal model of.
    """
    config = dict(DEFAULT_STUDENT) if config is None else config
    try:
        if isinstance(config, Mapping):
            settings = dict(config)
            config = transformers.AutoConfig.for_model(settings.pop("model_type", "llama"), **settings)
        elif isinstance(config, str):
            known = config in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
            config = (
                transformers.AutoConfig.for_model(config) if known else transformers.AutoConfig.from_pretrained(config)
            )
        config.vocab_size = vocab_size
        config.use_cache = False
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):  # ids of another vocabulary
            setattr(config, name, None)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return transformers.AutoModelForCausalLM.from_config(config)
    except (ValueError, OSError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"no student can be made of this config: {reason}") from error


class DistillationTrainer(transformers.Trainer):
    """transformers' Trainer with the loss of an arm; everything else is the Trainer's.

    Parameters
    ----------
    model : PreTrainedModel
        The student: its logits at t predict the token t + 1.
    args : TrainingArguments
        As `TrainingConfig.training_arguments` makes them (remove_unused_columns has to be off).
    config : TrainingConfig
        The arm and its weights.
    teacher : CorpusTeacher, optional
        Needed by the arm "corpus", and used by no other.
    held_out_bytes : int, optional
        UTF-8 bytes of the tokens that the evaluation predicts, for bits per byte.
    **options
        Of `transformers.Trainer`: train_dataset, eval_dataset, callbacks, …

    Raises
    ------
    ConfigError
        An arm without its teacher, or a student whose vocabulary is smaller than the teacher's.
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        args: transformers.TrainingArguments,
        *,
        config: TrainingConfig,
        teacher: CorpusTeacher | None = None,
        held_out_bytes: int | None = None,
        **options: Any,
    ) -> None:
        if config.arm == "corpus":
            if teacher is None:
                raise ConfigError("the arm 'corpus' has no teacher: give one, or choose another arm")
            if teacher.vocab_size > model.config.vocab_size:
                raise ConfigError(
                    f"the teacher's index has {teacher.vocab_size} tokens and the student only "
                    f"{model.config.vocab_size}: make a student with the index's vocabulary"
                )
        collator = options.pop("data_collator", None) or TeacherCollator(teacher if config.arm == "corpus" else None)
        super().__init__(model=model, args=args, data_collator=collator, **options)
        self.config = config
        self.held_out_bytes = held_out_bytes
        self.clock = StepClock()
        self.model_accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch, not by the passes
        self._held_out = torch.zeros(2, dtype=torch.float64)  # nats and tokens of an evaluation
        self._parts: dict[str, Tensor] = {}
        self._part_steps = 0
        self.add_callback(_ClockCallback(self.clock))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Held-out batches, all of them; no teacher is asked, since the evaluation is on the data."""
        collator, drop_last = self.data_collator, self.args.dataloader_drop_last
        self.data_collator, self.args.dataloader_drop_last = TeacherCollator(), False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator, self.args.dataloader_drop_last = collator, drop_last

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one step and the number of tokens that they predict, over all processes."""
        self.clock._began = time.perf_counter()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.clock.loader_s += time.perf_counter() - self.clock._began
        counted = torch.zeros((), dtype=torch.int64, device=device)
        for batch in batches:
            self.clock.teacher_s += batch.pop("teacher_s", 0.0)
            self.clock.tokens += batch["input_ids"].numel()
            counted += (batch["labels"][:, 1:] != IGNORE_INDEX).sum().to(device)
        if self.args.world_size > 1:
            counted = self.accelerator.reduce(counted, "sum")
        return batches, counted

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, SoftTargets):
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The arm's loss while training, the plain cross-entropy to the data otherwise; nats.

        While training it is the sum over this pass divided by the tokens of the whole step, so that
        accumulation and several processes give the mean of one big batch.
        """
        inputs = dict(inputs)
        labels = shift_labels(inputs.pop("labels"))
        targets = inputs.pop("soft_targets", None)
        outputs = model(**inputs)
        if not model.training:
            nats = label_smoothing_cross_entropy(outputs.logits, labels, reduction="none").sum(1)
            counted = (labels != IGNORE_INDEX).sum(1)
            # of all processes, without the rows that fill up the last batch
            every = self.accelerator.gather_for_metrics(torch.stack([nats, counted.to(nats)], 1))
            self._held_out += every.double().sum(0).cpu()
            loss = nats.sum() / counted.sum().clamp_min(1)
            return (loss, outputs) if return_outputs else loss
        if num_items_in_batch is None:
            num_items_in_batch = (labels != IGNORE_INDEX).sum()
        scale = self.accelerator.num_processes / torch.as_tensor(num_items_in_batch).clamp_min(1)
        if self.config.arm == "corpus":
            blend = blended_cross_entropy(
                outputs.logits, labels, targets, corpus_weight=self.config.corpus_weight, reduction="sum"
            )
            loss = blend.loss * scale
            self._note(hard_nats=blend.hard * scale, soft_nats=blend.soft * scale)
        else:
            epsilon = self.config.epsilon if self.config.arm == "label-smoothing" else 0.0
            loss = label_smoothing_cross_entropy(outputs.logits, labels, epsilon, reduction="sum") * scale
        return (loss, outputs) if return_outputs else loss

    def _note(self, **parts: Tensor) -> None:
        """Add parts of a step's loss up, until they are logged."""
        for name, value in parts.items():
            self._parts[name] = self._parts.get(name, 0) + value.detach()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the parts of the loss beside the loss."""
        steps = self.clock.steps - self._part_steps
        if "loss" in logs and self._parts and steps:
            means = {name: float(value) / steps for name, value in self._parts.items()}
            logs = {**logs, **means}
            self._parts, self._part_steps = {}, self.clock.steps
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """The Trainer's, with the loss as a mean over tokens, and bits per byte where the bytes are known."""
        self._held_out.zero_()
        output = super().evaluation_loop(*args, **kwargs)
        nats, tokens = self._held_out.tolist()
        prefix = kwargs.get("metric_key_prefix", "eval")
        if tokens and output.metrics is not None:
            output.metrics[f"{prefix}_loss"] = nats / tokens
            if self.held_out_bytes:
                output.metrics[f"{prefix}_bits_per_byte"] = nats / (math.log(2) * self.held_out_bytes)
        return output


class _ClockCallback(transformers.TrainerCallback):
    """Stops the clock at the end of each step."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.device.type == "cuda":  # the step has only been queued
            torch.cuda.synchronize(args.device)
        self.clock.step_s += time.perf_counter() - self.clock._began
        self.clock.steps += 1


class _ProgressCallback(transformers.TrainerCallback):
    """Tells a function of (step, last held-out loss or None) how far the training is."""

    def __init__(self, report: Callable[[int, float | None], None]) -> None:
        self.report = report
        self.held_out_nats: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.report(state.global_step, self.held_out_nats)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self.held_out_nats = (metrics or {}).get("eval_loss")


def train_student(
    config: TrainingConfig,
    student: transformers.PreTrainedModel,
    train: Windows,
    held_out: Windows,
    out: str | Path,
    *,
    teacher: CorpusTeacher | None = None,
    held_out_bytes: int | None = None,
    resume: bool = False,
    progress: Callable[[int, float | None], None] | None = None,
    callbacks: list[transformers.TrainerCallback] | None = None,
) -> TrainingResult:
    """Train a student and evaluate it on held-out text.

    Parameters
    ----------
    config : TrainingConfig
        The arm and the schedule.
    student : PreTrainedModel
        Trained in place.
    train, held_out : Windows
        Of windows, as `corpus_teacher.data.TokenWindows` gives them; all of one length.
    out : path
        For checkpoints, and training.json with the settings.
    teacher : CorpusTeacher, optional
        Needed by the arm "corpus".
    held_out_bytes : int, optional
        UTF-8 bytes of the tokens that the held-out windows predict.
    resume : bool
        Go on from the last checkpoint under `out`: the rest of the run is as if it had never stopped.
    progress : callable, optional
        Called after every step with its number and the last held-out loss.
    callbacks : list of TrainerCallback, optional
        Of transformers.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ConfigError
        Settings that don't fit together, or nothing to resume.
    """
    out = Path(out)
    checkpoint = get_last_checkpoint(str(out)) if resume and out.is_dir() else None
    if resume and checkpoint is None:
        raise ConfigError(f"there is no checkpoint under {out}: train without resume, with save_every set")
    trainer = DistillationTrainer(
        student,
        config.training_arguments(out),
        config=config,
        teacher=teacher,
        held_out_bytes=held_out_bytes,
        train_dataset=train,
        eval_dataset=held_out,
        callbacks=[*(callbacks or []), *([_ProgressCallback(progress)] if progress else [])],
    )
    for printer in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(printer)
    out.mkdir(parents=True, exist_ok=True)
    described = {**asdict(config), "teacher": teacher.describe() if teacher else None}
    (out / "training.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    trainer.train(resume_from_checkpoint=checkpoint)

    tokens_a_step = config.batch_size * config.accumulation * trainer.args.world_size
    tokens_a_step *= len(train[0]["input_ids"])
    if not any(entry["step"] == config.steps for entry in trainer.state.log_history if "eval_loss" in entry):
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
    cost = clock.loader_s if config.num_workers else clock.teacher_s
    return TrainingResult(
        arm=config.arm,
        held_out_nats=history[-1]["held_out_nats"],
        bits_per_byte=history[-1].get("bits_per_byte"),
        history=history,
        steps=config.steps,
        tokens=config.steps * tokens_a_step,
        seconds=clock.step_s,
        tokens_per_s=clock.tokens / clock.step_s if clock.step_s else 0.0,
        teacher_s=clock.teacher_s,
        loader_s=clock.loader_s,
        teacher_share=cost / clock.step_s if clock.step_s and config.arm == "corpus" else 0.0,
    )
