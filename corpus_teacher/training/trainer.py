"""transformers' Trainer with soft targets.

Its checkpoints, exact resume, mixed precision, gradient accumulation, logging and torchrun are those of transformers.
What is ours: the loss, batches that carry soft targets, a held-out loss that is always the plain cross-entropy to the
data, and a clock that tells where the time of a step went.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from corpus_teacher.blend import AdaptiveWeights, BlendReport, Components
from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import IGNORE_INDEX, label_smoothing_cross_entropy, shift_labels
from corpus_teacher.neural import CachedTeacher, EmaCallback, EmaTeacher, NeuralTeacher, TargetFormat
from corpus_teacher.on_policy import OnPolicy, continue_rows
from corpus_teacher.students import CorpusStudent
from corpus_teacher.targets import MixedTargets, SoftTargets
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.teaching import Teacher, Teachers
from corpus_teacher.training import checkpoints
from corpus_teacher.training.callbacks import AdaptiveCallback, ClockCallback, StepClock
from corpus_teacher.training.collator import TAUGHT, DistillationCollator, finish
from corpus_teacher.training.config import DistillationConfig
from corpus_teacher.training.inside import Beside, MixtureCallback, note_alone
from corpus_teacher.training.muon import MuonWithAdamW
from corpus_teacher.training.objective import Head, Objective, Taught

AskedTeacher = Teacher | Callable[[Any], Any]
"""A `Teacher`, or a function of input ids, (B, T) → `SoftTargets`, `DenseTargets` or logits."""

_PACKED = frozenset({
    "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx",
})  # fmt: skip
"""Columns of packed batches that models of transformers take without naming them."""

_EMA_FILE, _ADAPTIVE_FILE, _MIXTURE_FILE = "self_teacher.pt", "adaptive.pt", "mixture.pt"


class DistillationTrainer(transformers.Trainer):
    """A Trainer whose student learns from labels, from the corpus, from a neural teacher and from itself.

    Parameters
    ----------
    model : PreTrainedModel
        The student: its logits at t predict the token t + 1.
    args : DistillationConfig
        How much of what.
    teacher : CorpusTeacher or path, optional
        A path of an index is opened.
    neural_teacher : NeuralTeacher, CachedTeacher, path or callable, optional
        A path is that of a cache or a model. A cache is read in the loader's workers, a live model is asked where the
        student is: for all that it says, ``NeuralTeacher(…, kept=TargetFormat("all"))``, or its `logits`.
    self_teacher : EmaTeacher, NeuralTeacher or callable, optional
        As the neural one: the student's moving average, which is updated after each step and saved with each
        checkpoint; or an earlier checkpoint of it.
    teachers : Teachers, optional
        The three as one value, in their place.
    on_policy : OnPolicy, optional
        Some batches are continued by the student itself, and the teachers say what they think of that.
    held_out_bytes : int, optional
        UTF-8 bytes of the tokens that the evaluation predicts, for bits per byte.
    form : {"flat", "mixed"}
        Of the corpus' targets.
    **options
        Of `transformers.Trainer`: train_dataset (windows, as `TokenWindows` gives them), eval_dataset, callbacks, …

    Raises
    ------
    ConfigError
        Teachers and settings that don't go together, or a student whose vocabulary is smaller than a teacher's.
    """

    args: DistillationConfig
    objective: Objective

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        args: DistillationConfig,
        *,
        teacher: CorpusTeacher | str | Path | None = None,
        neural_teacher: AskedTeacher | str | Path | None = None,
        self_teacher: AskedTeacher | None = None,
        teachers: Teachers | None = None,
        on_policy: OnPolicy | None = None,
        held_out_bytes: int | None = None,
        form: str = "flat",
        **options: Any,
    ) -> None:
        if not isinstance(args, DistillationConfig):
            raise ConfigError(
                f"args is a {type(args).__name__}: give a DistillationConfig, which takes the same settings, and "
                "alpha, policy and the like"
            )
        if args.remove_unused_columns:
            raise ConfigError(
                "remove_unused_columns is True: batches would lose where their rows stand in the corpus; leave it False"
            )
        if isinstance(teacher, (str, Path)):
            teacher = CorpusTeacher(teacher)
        if isinstance(neural_teacher, (str, Path)):
            neural_teacher = _open_neural(neural_teacher, model.config.vocab_size)
        given = one_value(teachers, teacher, neural_teacher, self_teacher)
        unigram = None
        if given.corpus is not None and args.label_smoothing_factor and args.smooth_with == "unigram":
            unigram = given.corpus.base_distribution().float()
        self.objective = Objective(args, given.names, unigram)
        self._inside = model if isinstance(model, CorpusStudent) and model.has_corpus else None
        self._mixture: AdaptiveWeights | None = None
        if self._inside is not None:
            beside = (given.corpus is not None, given.self_teacher is not None, on_policy is not None)
            Beside(*beside, form, args).check()
            if self._inside.follows is not None:
                self._mixture = AdaptiveWeights(self._inside.follows)
        self.teachers = given.only(self.objective.soft | (frozenset() if self._inside is None else {"corpus"}))
        for name, one in self.teachers:
            _check_vocabulary(name, one, model)
        if on_policy is not None and not self.teachers.names & {"corpus", "neural"}:
            raise ConfigError(
                "on-policy training has no teacher to score the student's text: give one, and alpha above 0"
            )
        own = self.teachers.self_teacher
        own = getattr(own, "owner", own)  # of a method of an average
        self._average = own if isinstance(own, EmaTeacher) else None
        if args.fsdp and self._average is not None:
            raise ConfigError(
                "fsdp holds parts of the student, which an average of it would have to gather: leave one out"
            )
        if options.get("compute_metrics") is not None:
            args.prediction_loss_only = False  # metrics read logits
        neural = self.teachers.neural
        cached = neural if getattr(neural, "is_stored", False) else None
        self._outside = None
        if on_policy is not None and self.teachers.corpus is not None:
            self._outside = self.teachers.corpus.for_new_text()
        self.on_policy = on_policy
        self.held_out_bytes = held_out_bytes
        self.clock = StepClock()
        collator = options.pop("data_collator", None) or DistillationCollator(
            self.teachers.corpus,
            cached=cached,
            form=form,
            evidence=self.objective.policy.evidence,
            permute=args.control == "permuted",
            ahead=not args.dataloader_num_workers,
        )
        super().__init__(model=model, args=args, data_collator=collator, **options)
        if args.fsdp and not self.is_fsdp_enabled:
            raise ConfigError("fsdp is set and nothing would be sharded here: leave it out, or train on accelerators")
        self.model_accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch, not by the passes
        self._table = None
        if self.teachers.corpus is not None and form == "mixed":
            self._table = self.teachers.corpus.row_table().to(args.device)
        self._held_out = torch.zeros(2, dtype=torch.float64)  # nats and tokens of an evaluation
        self._notes = _Notes()
        self.add_callback(ClockCallback(self.clock))
        if self._average is not None:
            self.add_callback(EmaCallback(self._average))
        if self.objective.adaptive is not None:
            self.add_callback(AdaptiveCallback(self.objective.adaptive, self.accelerator))
        if self._mixture is not None and self._inside is not None:
            self.add_callback(MixtureCallback(self._mixture, self.accelerator, self._inside))

    @property
    def teacher(self) -> Any:
        """The corpus teacher, where it teaches."""
        return self.teachers.corpus

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, *args: Any, **options: Any) -> Any:
        """The Trainer's; but only a whole checkpoint is gone on from, and where its last step is done nothing is
        trained. No thread of the collator's outlives it.

        Raises
        ------
        ConfigError
            A checkpoint that was cut short or damaged; True, and there is none.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.newest_checkpoint(warnings.warn)
            if resume_from_checkpoint is None:
                raise ConfigError(f"there is no checkpoint under {self.args.output_dir}: train without resume")
        elif resume_from_checkpoint and checkpoints.is_sealed(Path(resume_from_checkpoint)):
            fault = checkpoints.fault_of(Path(resume_from_checkpoint))
            if fault is not None:
                raise ConfigError(f"{resume_from_checkpoint} can't be gone on from, {fault}: name another one")
        try:
            if resume_from_checkpoint and self._is_done(Path(resume_from_checkpoint)):
                return self._take_over(Path(resume_from_checkpoint))
            checkpoint = str(resume_from_checkpoint) if resume_from_checkpoint else None
            return super().train(checkpoint, *args, **options)
        finally:
            if isinstance(self.data_collator, DistillationCollator):
                self.data_collator.close()

    def newest_checkpoint(self, notices: Callable[[str], None]) -> Path | None:
        """The newest whole checkpoint in the folder; see `corpus_teacher.training.checkpoints.newest_whole`.

        The main process reads the files and decides for all; a refusal there ends the others as well.
        """
        if self.args.world_size == 1:
            return checkpoints.newest_whole(Path(str(self.args.output_dir)), notices)
        found: list[Any] = [None, None]
        if self.args.process_index == 0:
            try:
                found[0] = checkpoints.newest_whole(Path(str(self.args.output_dir)), notices)
            except ConfigError as error:
                found[1] = error
        torch.distributed.broadcast_object_list(found)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def _is_done(self, checkpoint: Path) -> bool:
        """Whether no step is left after a checkpoint."""
        state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if self.args.max_steps > 0:
            return state.global_step >= self.args.max_steps
        return bool(state.global_step) and (state.epoch or 0) >= self.args.num_train_epochs

    def _take_over(self, checkpoint: Path) -> TrainOutput:
        """The student and the state of a finished training."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self.state.is_world_process_zero = self.is_world_process_zero()
        self.state.is_local_process_zero = self.is_local_process_zero()
        if self.args.should_save:  # a kill after the last checkpoint leaves those that it was to replace
            out = Path(str(self.args.output_dir))
            checkpoints.remove_oldest(out, self.args.save_total_limit, self.state.best_model_checkpoint)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()
        return TrainOutput(self.state.global_step, float("nan"), {})

    # Batches

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Held-out batches, all of them; no teacher is asked, since the evaluation is on the data."""
        collator, drop_last = self.data_collator, self.args.dataloader_drop_last
        self.args.dataloader_drop_last = False
        if isinstance(collator, DistillationCollator):
            self.data_collator = DistillationCollator()
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator, self.args.dataloader_drop_last = collator, drop_last

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one step and the number of tokens that they predict, over all processes."""
        self.clock.began = time.perf_counter()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.clock.loader_s += time.perf_counter() - self.clock.began
        if self.on_policy is not None and self.on_policy.is_on_policy(self.state.global_step):
            batches = [self._own_text(batch, number, self.on_policy) for number, batch in enumerate(batches)]
        counted = torch.zeros((), dtype=torch.int64, device=device)
        for batch in batches:
            if "labels" not in batch:
                raise ConfigError(
                    "the batches have no labels: give a data_collator that makes them, such as "
                    "DataCollatorForLanguageModeling with mlm=False, or none"
                )
            self.clock.tokens += batch["input_ids"].numel()
            counted += (batch["labels"][:, 1:] != IGNORE_INDEX).sum().to(device)
        if self.args.world_size > 1:
            counted = self.accelerator.reduce(counted, "sum")
        return batches, counted

    def _own_text(self, batch: dict[str, Any], number: int, settings: OnPolicy) -> dict[str, Any]:
        """The batch continued by the student, and what the corpus says of that text; only it is to be learnt."""
        if TAUGHT in batch:
            batch[TAUGHT].cancel()  # of a text that isn't read
        generator = settings.generator(self.state.global_step, number, self.args.process_index)
        ids = batch["input_ids"].to(self.args.device)
        written = continue_rows(
            self.accelerator.unwrap_model(self.model),
            ids,
            prompt_len=settings.prompt_len,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            generator=generator,
            vocab_size=self.teachers.vocab_size,
        ).cpu()
        labels = written.clone()
        labels[:, : settings.prompt_len] = IGNORE_INDEX
        own: dict[str, Any] = {"input_ids": written, "labels": labels, "on_policy": True}
        if self._outside is not None:
            begin = time.perf_counter()
            own["soft_targets"] = self._outside(written)
            if self.objective.policy.evidence:
                own["evidence"] = self._outside.evidence(self.objective.policy.evidence, written)
            self._note_asked(begin)
        return own

    def _prepare_inputs(self, inputs: Any) -> Any:
        """The batch on its device; what a thread still makes of it is waited for, and counts as a stall."""
        begin = time.perf_counter()
        inputs = finish(inputs)
        self.clock.loader_s += time.perf_counter() - begin
        self.clock.teacher_s += inputs.pop("teacher_s", 0.0)
        return super()._prepare_inputs(inputs)

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, (SoftTargets, MixedTargets)):
            data = data.to(self.args.device, non_blocking=True)
            return data.with_table(self._table) if isinstance(data, MixedTargets) and self._table is not None else data
        return super()._prepare_input(data)

    # Losses

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective while training, the plain cross-entropy to the data otherwise; nats.

        While training it is the sum over this pass divided by the tokens of the whole step, so that
        accumulation and several processes give the mean of one big batch.
        """
        batch = dict(inputs)
        labels = shift_labels(batch.pop("labels"))
        corpus, neural = batch.pop("soft_targets", None), batch.pop("neural_targets", None)
        evidence, on_policy = batch.pop("evidence", {}), batch.pop("on_policy", False)
        if not model.training:
            outputs = model(**self._for_model(batch))
            loss = self._note_held_out(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss
        if corpus is None and self.teachers.corpus is not None and not on_policy:
            corpus, evidence = self._ask_corpus(batch, labels)
        if neural is None and self.teachers.neural is not None:
            neural = self._ask(self.teachers.neural, batch)
        own = None if self.teachers.self_teacher is None else self._ask(self.teachers.self_teacher, batch)
        outputs, student = self._run(model, batch, None if self._inside is None else corpus)
        known = Components(labels, corpus, neural, own, evidence=evidence)
        if self._mixture is not None:
            note_alone(self._mixture, outputs, known)
        taught = self.objective(self.state.global_step, student, known, on_policy=on_policy)
        self._notes.add(taught)
        if corpus is not None and self._logs_after_this_step():
            self._notes.add_entropy(corpus)
        if num_items_in_batch is None:
            num_items_in_batch = (labels != IGNORE_INDEX).sum()
        loss = taught.loss + self._router_loss(model, outputs, labels)
        loss = loss * self.accelerator.num_processes / torch.as_tensor(num_items_in_batch).clamp_min(1)
        return (loss, outputs) if return_outputs else loss

    def _for_model(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The columns that the student's forward names; others, that windows had as well, are nobody's here."""
        self._set_signature_columns_if_needed()
        known = _PACKED.union(self._signature_columns or ())
        return {name: value for name, value in batch.items() if name in known}

    def _run(
        self, model: torch.nn.Module, batch: dict[str, Any], corpus: SoftTargets | None
    ) -> tuple[Any, Tensor | Head]:
        """The student's outputs, and its logits or what they are made of; with the corpus inside, if it is there."""
        if not self.args.fused:
            inside = {} if corpus is None else {"corpus": corpus}
            outputs = model(**self._for_model(batch), **inside)
            return outputs, outputs.logits
        # The head of one position only: through the wrapped model, so that DDP and FSDP see their forward pass.
        outputs = model(**self._for_model(batch), output_hidden_states=True, logits_to_keep=1)
        inner = self.accelerator.unwrap_model(model)
        head = inner.get_output_embeddings()
        soft_cap = getattr(inner.config, "final_logit_softcapping", None)
        return outputs, Head(outputs.hidden_states[-1], head.weight, getattr(head, "bias", None), soft_cap)

    def _router_loss(self, model: torch.nn.Module, outputs: Any, labels: Tensor) -> Tensor | float:
        """The load-balancing loss of a mixture of experts that gives its routers' logits, weighted as transformers
        does; times the labels of the pass, so that accumulation makes a mean of it."""
        balance = outputs.get("aux_loss") if hasattr(outputs, "get") else None
        config = self.accelerator.unwrap_model(model).config
        factor = getattr(config, "router_aux_loss_coef", 0) or 0
        if not isinstance(balance, Tensor) or not factor:
            return 0.0
        counted = (labels != IGNORE_INDEX).sum()
        self._notes.add_part("router_loss", balance * counted, counted)
        return factor * balance * counted

    def _ask_corpus(self, batch: dict[str, Any], labels: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """What the corpus says of a batch of another collator: targets where there are labels, and evidence."""
        begin = time.perf_counter()
        corpus = self.teachers.corpus
        said = corpus.mixed(batch) if self._table is not None else corpus(batch)
        evidence = corpus.evidence(self.objective.policy.evidence, batch)
        self._note_asked(begin)
        return self._prepare_input(said), {name: one.to(labels.device) for name, one in evidence.items()}

    def _ask(self, teacher: Teacher, batch: dict[str, Any]) -> Any:
        """What a live teacher says, each segment of the batch as if it was alone."""
        begin = time.perf_counter()
        said = teacher(batch)
        self._note_asked(begin)
        return said.to(self.args.device)

    def _note_asked(self, begin: float) -> None:
        """A live teacher was asked, from `begin` until now."""
        took_s = time.perf_counter() - begin
        self.clock.asked_s += took_s
        self.clock.teacher_s += took_s

    # What is told

    def _note_held_out(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Add a batch to the evaluation; its mean loss."""
        nats = label_smoothing_cross_entropy(logits, labels, reduction="none").sum(1)
        counted = (labels != IGNORE_INDEX).sum(1)
        # of all processes, without the rows that fill up the last batch
        every = self.accelerator.gather_for_metrics(torch.stack([nats, counted.to(nats)], 1))
        self._held_out += every.double().sum(0).cpu()
        return nats.sum() / counted.sum().clamp_min(1)

    def _logs_after_this_step(self) -> bool:
        every = int(self.state.logging_steps or 1)
        return (self.state.global_step + 1) % max(1, every) == 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the parts of the loss, the reasons, the teacher's entropy and the stalls beside the loss.

        Names: ``hard_nats``, ``corpus_nats`` … are means over the positions that they teach; ``share_…``,
        ``weight_…`` are of `BlendReport`; ``teacher_entropy`` is of the step just done, in nats. Parts of the time of
        the steps since the last log: ``loader_share``, the stalls (batches and targets that were waited for), and
        ``teacher_share``, what the teachers took, wherever they ran (so it may be hidden, and above 1).
        """
        if "loss" in logs:
            logs = {**logs, **self._notes.told(self.accelerator, self.clock)}
            if self.objective.adaptive is not None:
                logs |= self.objective.adaptive.logs()
            if self._mixture is not None:
                logs |= {f"mixture_{name}": value for name, value in self._mixture.logs().items()}
            if self._inside is not None and self._inside.gate is not None:
                logs["corpus_gate"] = float(self._inside.gate.detach())
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

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's, sealed when all processes have written their part of it; only then older ones are removed."""
        out = Path(self._get_output_dir(trial))
        folder, limit = out / f"checkpoint-{self.state.global_step}", self.args.save_total_limit
        if self.args.should_save:
            checkpoints.unseal(folder)
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if self._average is not None and self.args.should_save:
            torch.save(self._average.state_dict(), folder / _EMA_FILE)
        for weights, name, _ in self._followed():
            if self.args.should_save:
                torch.save(weights.state_dict(), folder / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(folder)
            checkpoints.remove_oldest(out, limit, self.state.best_model_checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._average is not None:
            try:
                state = torch.load(Path(resume_from_checkpoint, _EMA_FILE), map_location="cpu", weights_only=True)
            except OSError as error:
                raise ConfigError(
                    f"{resume_from_checkpoint} holds no moving average of the student ({_EMA_FILE}): "
                    "resume a run that had one"
                ) from error
            self._average.load_state_dict(state)
        for weights, name, what in self._followed():
            try:
                state = torch.load(Path(resume_from_checkpoint, name), map_location="cpu", weights_only=True)
            except OSError as error:
                raise ConfigError(
                    f"{resume_from_checkpoint} holds no weights of {what} ({name}): resume a run that had one"
                ) from error
            weights.load_state_dict(state)
        if self._mixture is not None and self._inside is not None:
            self._inside.mixture = self._mixture.mixture()

    def _followed(self) -> list[tuple[AdaptiveWeights, str, str]]:
        """Weights by evidence that checkpoints hold, the file of each, and what it is of."""
        every = (
            (self.objective.adaptive, _ADAPTIVE_FILE, "an adaptive policy"),
            (self._mixture, _MIXTURE_FILE, "a mixture by evidence"),
        )
        return [(weights, name, what) for weights, name, what in every if weights is not None]

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """The Trainer's, or Muon with AdamW."""
        if not self.args.muon or self.optimizer is not None:
            return super().create_optimizer(*args)
        student: Any = self.model
        head = student.get_output_embeddings()
        self.optimizer = MuonWithAdamW(
            student,
            outside=[name for name, one in student.named_modules() if one is head],
            decayed=self.get_decay_parameter_names(student),
            lr=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
        )
        return self.optimizer

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """The Trainer's, without the gates of n-grams and of the corpus, which aren't drawn to 0."""
        return [name for name in super().get_decay_parameter_names(model) if name.rpartition(".")[2] != "gate"]


class _Notes:
    """What is added up between two logs."""

    def __init__(self) -> None:
        self.parts: dict[str, Tensor] = {}  # sum and number
        self.report = BlendReport()
        self.before = StepClock()

    def add(self, taught: Taught) -> None:
        for name, (total, number) in taught.parts.items():
            self.add_part(f"{name}_nats", total, number)
        if taught.blend is not None:
            self.report.add(taught.blend)

    def add_entropy(self, corpus: SoftTargets | MixedTargets) -> None:
        self.add_part("teacher_entropy", corpus.entropy().sum(), corpus.valid.sum())

    def add_part(self, name: str, total: Tensor, number: Tensor) -> None:
        pair = torch.stack([total.detach().double(), number.double()])
        self.parts[name] = self.parts[name] + pair if name in self.parts else pair

    def told(self, accelerator: Any, clock: StepClock) -> dict[str, float]:
        """Means of all processes since the last call."""
        names = sorted(self.parts)
        if accelerator.num_processes > 1:
            self.report.totals = accelerator.reduce(self.report.totals.to(accelerator.device), "sum")
            self.parts = {name: accelerator.reduce(self.parts[name], "sum") for name in names}
        means = {name: self.parts[name].tolist() for name in names}
        logs = {name: total / number for name, (total, number) in means.items() if number}
        if self.report.positions:
            logs |= self.report.logs()
        step_s = clock.step_s - self.before.step_s
        if step_s > 0:
            logs["loader_share"] = (clock.loader_s - self.before.loader_s) / step_s
            logs["teacher_share"] = (clock.teacher_s - self.before.teacher_s) / step_s
        self.parts.clear()
        self.report.clear()
        self.before = StepClock(**vars(clock))
        return logs


def _open_neural(path: str | Path, vocab_size: int) -> Teacher:
    """A cache, or a model that is asked for all that it says."""
    if (Path(path) / "manifest.json").is_file():
        return CachedTeacher(path, vocab_size=vocab_size)
    return NeuralTeacher(path, vocab_size=vocab_size, kept=TargetFormat("all"))


def one_value(teachers: Teachers | None, *each: Any) -> Teachers:
    """The teachers of a training, given as one value or each by itself: corpus, neural, self."""
    if teachers is None:
        return Teachers(*each)
    if any(one is not None for one in each):
        raise ConfigError("teachers were given, and a teacher beside them: put it into teachers")
    return teachers


def _check_vocabulary(name: str, teacher: Teacher, model: transformers.PreTrainedModel) -> None:
    size = teacher.vocab_size
    if size is not None and size > model.config.vocab_size:
        what = "teacher's index" if name == "corpus" else f"{name} teacher"
        raise ConfigError(
            f"the {what} has {size} tokens and the student only {model.config.vocab_size}: "
            "make a student with the same vocabulary"
        )
