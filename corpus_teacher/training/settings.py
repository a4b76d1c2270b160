"""A training as a TOML file: every table is checked before anything heavy starts.

A wrong key is named, with the nearest right one.

The tables of teachers have the names that policies have: a component is there when its table is. ``[training]`` takes
the settings of `DistillationConfig`, ``[policy]`` those of `corpus_teacher.blend.make_policy`.
"""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from corpus_teacher.blend import Adaptive, in_steps, make_policy
from corpus_teacher.data.documents import UNPACK_RATIO, check_unpack_ratio
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import read_toml
from corpus_teacher.neural.formats import KINDS
from corpus_teacher.on_policy import OnPolicy
from corpus_teacher.quantization import ACTIVATIONS, WEIGHTS
from corpus_teacher.settings import check_keys, check_known, check_whole, is_number, make_from, nearest, within
from corpus_teacher.students import Residual, make_mixture, make_ngram_table, make_residual
from corpus_teacher.training.config import DistillationConfig
from corpus_teacher.training.inside import Beside
from corpus_teacher.training.objective import Objective
from corpus_teacher.training.student import DEFAULT_STUDENT, complete_student

_OURS = ("output_dir", "seed", "data_seed", "policy")  # of TrainingArguments, what stands elsewhere in the file

_OTHER_NAMES = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "num_steps": "max_steps",
    "scheduler": "lr_scheduler_type",
    "warmup": "warmup_steps",
    "warmup_ratio": "warmup_steps",
    "grad_clip": "max_grad_norm",
    "clip": "max_grad_norm",
    "optimizer": "optim",
    "num_workers": "dataloader_num_workers",
    "label_smoothing": "label_smoothing_factor",
}
"""What other trainers call some of the settings."""


@dataclass(frozen=True)
class DataSettings:
    """The text.

    Parameters
    ----------
    index : str
        Whose tokenizer and vocabulary everybody has, and whose corpus is read unless `train` names another text.
    train : tuple of str
        Sources as `corpus-teacher index build` takes them.
    held_out : tuple of str
        Text to evaluate on.
    length : int
        Tokens of a window.
    train_tokens, held_out_tokens : int, optional
        Read at most so many: of the shuffled windows, and of the beginning of the held-out text.
    text_field, token_dtype : str
        Of .jsonl and .parquet files, and of raw .bin files.
    unpack_ratio : float
        Of packed files; see `ReadOptions`.
    """

    index: str
    held_out: tuple[str, ...]
    train: tuple[str, ...] = ()
    length: int = 256
    train_tokens: int | None = None
    held_out_tokens: int | None = None
    text_field: str = "text"
    token_dtype: str = "auto"
    unpack_ratio: float = UNPACK_RATIO

    def __post_init__(self) -> None:
        for name in ("train", "held_out"):
            value = getattr(self, name)
            texts = (value,) if isinstance(value, str) else value
            if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
                raise ConfigError(f"{name} is {value!r}: give a list of files, folders or globs")
            object.__setattr__(self, name, tuple(texts))
        if not self.held_out:
            raise ConfigError("held_out names no text: give a file, folder or glob to evaluate on")
        check_whole(self.length, "length", 2)
        for name in ("train_tokens", "held_out_tokens"):
            if getattr(self, name) is not None:
                check_whole(getattr(self, name), name, self.length)
        check_unpack_ratio(self.unpack_ratio)


@dataclass(frozen=True)
class CorpusSettings:
    """The corpus teacher; see `CorpusTeacher`.

    Parameters
    ----------
    index : str, optional
        That of the data by default; a larger one may know what the student never reads.
    leave_out : str, optional
        "auto", "self", "document", or "none" for text that is not in the index. Has to be given where `data.train` is.
    form : {"flat", "mixed"}
    estimator : str or dict
        A name, a file that `teacher fit` wrote, or a table of name and parameters.
    recall : bool
        Mix in what followed the same last tokens earlier in the row; of flat targets.
    residual : bool or dict
        The corpus inside of the student: ``softmax(logits + gate · log p)``, in training and afterwards. true, or a
        table of `corpus_teacher.students.Residual`: gate (1 at first) and trained (true).
    mixture : float, str or dict, optional
        The corpus inside of the student: ``λ · student + (1 − λ) · p``, in training and afterwards. λ is this number,
        or follows the evidence: "evidence", or a table of `corpus_teacher.blend.Adaptive`.
    """

    index: str | None = None
    estimator: Any = "witten-bell"
    max_order: int | None = 5
    leave_out: str | None = None
    top_k: int = 64
    top_p: float = 1.0
    form: str = "flat"
    recall: bool = False
    residual: Any = False
    mixture: Any = None

    def __post_init__(self) -> None:
        if self.inside is not None and self.recall:
            raise ConfigError("recall looks at the row alone, and the corpus is inside of the student: leave one out")
        if self.recall and self.form == "mixed":
            raise ConfigError("recall has no mixed form: set form to 'flat', or leave recall out")
        if self.leave_out is not None:
            check_known(self.leave_out, ("auto", "self", "document", "none"), "leave_out")
        check_known(self.form, ("flat", "mixed"), "form")
        if self.max_order is not None:
            check_whole(self.max_order, "max_order", 0)
        check_whole(self.top_k, "top_k", 1)
        _check_mass(self.top_p, "top_p")

    @property
    def inside(self) -> Residual | Adaptive | float | None:
        """How the corpus is inside of the student: a residual, a mixture of one weight or by evidence, or not at all.

        Raises
        ------
        ConfigError
            Both, or settings that make neither.
        """
        residual, mixture = make_residual(self.residual), make_mixture(self.mixture)
        if residual is not None and mixture is not None:
            raise ConfigError("residual and mixture both put the corpus inside of the student: leave one of them out")
        return mixture if residual is None else residual


@dataclass(frozen=True)
class NeuralSettings:
    """The neural teacher: a live model, or a cache of one.

    Parameters
    ----------
    model : str, optional
        A folder, a name, a GGUF file, "smollm2".
    cache : str, optional
        A folder that `corpus-teacher teacher cache` wrote, of windows of the same length.
    keep : {"all", "top-k", "top-p", "sample", "systematic", "hidden"}
        What of a live model's distributions is taught: all, or what a cache would keep.
    k, p, draws, precision
        As in `TargetFormat`; k of a cache reads only so many, and precision is that of hidden states.
    rows : int
        Rows that a live model sees at once.
    dtype : str, optional
        Of a live model: "float32", "bfloat16" or "float16".
    missing : {"refuse", "invalid"}
        Windows that the cache lacks; "invalid" leaves them to the fallbacks.
    """

    model: str | None = None
    cache: str | None = None
    keep: str = "all"
    k: int | None = None
    p: float = 0.95
    draws: int = 50
    precision: str = "fp16"
    rows: int = 8
    dtype: str | None = None
    missing: str = "refuse"

    def __post_init__(self) -> None:
        if (self.model is None) == (self.cache is None):
            raise ConfigError("give either model or cache")
        check_known(self.keep, KINDS, "keep")
        if self.dtype is not None:
            check_known(self.dtype, ("float32", "bfloat16", "float16"), "dtype")
        check_known(self.missing, ("refuse", "invalid"), "missing")
        for name in ("k", "draws", "rows"):
            if getattr(self, name) is not None:
                check_whole(getattr(self, name), name, 1)
        _check_mass(self.p, "p")


@dataclass(frozen=True)
class SelfSettings:
    """The student as its own teacher: its moving average, or an earlier checkpoint.

    Parameters
    ----------
    decay : float
        Of the moving average.
    warm_up : bool
        Average over fewer steps at first.
    checkpoint : str, optional
        A folder, in place of the average.
    """

    decay: float = 0.999
    warm_up: bool = True
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if not is_number(self.decay) or not 0 <= self.decay < 1:
            raise ConfigError(f"decay is {self.decay!r}: give a number from 0 to below 1")


@dataclass(frozen=True)
class QuantizationSettings:
    """A fake-quantised student; see `corpus_teacher.quantization.fake_quantize`."""

    weights: str = "int4"
    activations: str | None = None
    group_size: int = 32

    def __post_init__(self) -> None:
        check_known(self.weights, WEIGHTS, "weights")
        if self.activations is not None:
            check_known(self.activations, tuple(filter(None, ACTIVATIONS)), "activations")
        check_whole(self.group_size, "group_size", 2)


@dataclass(frozen=True)
class RunSettings:
    """A whole training.

    Parameters
    ----------
    out : str
        The folder of checkpoints, of run.json and of the finished student.
    data : DataSettings
    student : dict
        Settings of a model of transformers ("model_type" and its own), or "checkpoint", a folder to go on from; and
        "ngram_table", true or the settings of a table of n-grams (`corpus_teacher.students.NgramTableSettings`).
    seed : int
        Of the first weights and the order of the data.
    corpus, neural, self, on_policy, quantization, policy : optional
        The tables of these names.
    training : dict
        Settings of `DistillationConfig`.
    """

    out: str
    data: DataSettings
    student: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_STUDENT))
    seed: int = 0
    corpus: CorpusSettings | None = None
    neural: NeuralSettings | None = None
    self_: SelfSettings | None = None
    on_policy: OnPolicy | None = None
    quantization: QuantizationSettings | None = None
    policy: dict[str, Any] | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The tables that these settings are made of, defaults included."""
        made = {"self" if name == "self_" else name: value for name, value in asdict(self).items()}
        if self.data.unpack_ratio == UNPACK_RATIO:
            del made["data"]["unpack_ratio"]  # so that trainings of before are known by their settings
        if self.corpus is not None and not self.corpus.recall:
            del made["corpus"]["recall"]  # for the same reason
        for name, default in (("residual", False), ("mixture", None)):
            if self.corpus is not None and getattr(self.corpus, name) == default:
                del made["corpus"][name]
        return {name: value for name, value in made.items() if value is not None}

    def num_steps(self, num_windows: int | None = None) -> int | None:
        """Steps of the whole training: max_steps, or those of the epochs.

        Parameters
        ----------
        num_windows : int, optional
            Windows that there are to train on; without it the steps of epochs aren't known: None.

        Raises
        ------
        ConfigError
            Neither is given, or out of range.
        """
        steps, epochs = self.training.get("max_steps", -1), self.training.get("num_train_epochs")
        if steps == -1 and epochs is not None:
            if not is_number(epochs) or epochs <= 0:
                raise ConfigError(f"training.num_train_epochs is {epochs!r}: give a number above 0")
            if num_windows is None:
                return None
            rows, accumulated = self._rows_of_a_pass(), int(self.training.get("gradient_accumulation_steps", 1))
            batches = num_windows // rows // self.num_processes()
            return math.ceil(epochs * max(1, math.ceil(batches / accumulated)))
        if steps == -1:
            raise ConfigError("training has neither max_steps nor num_train_epochs: say how many steps to train")
        if not isinstance(steps, int) or steps < 1:
            raise ConfigError(f"training.max_steps is {steps!r}: say how many steps to train")
        return steps

    def _rows_of_a_pass(self) -> int:
        default = next(one.default for one in fields(DistillationConfig) if one.name == "per_device_train_batch_size")
        return int(self.training.get("per_device_train_batch_size", default))

    @staticmethod
    def num_processes() -> int:
        """Processes of this training, as torchrun says."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    def resolved(self, num_windows: int | None = None) -> dict[str, Any]:
        """The tables with all that they leave out and that decides what comes of a training: of the student every
        setting of its model, of ``[training]`` what is ours, given, or another default than transformers'.

        `make_run` makes the same training of it.
        """
        made = self.to_dict()
        if "checkpoint" not in self.student:
            made["student"] = _whole_student(self.student)
        if self.policy is not None:
            made["policy"] = make_policy(in_steps(self.policy, self.num_steps(num_windows) or 1)).to_dict()
        config = self.config(num_windows)
        theirs = {one.name: one.default for one in fields(transformers.TrainingArguments)}
        names = [
            one.name
            for one in fields(DistillationConfig)
            if one.init and one.name not in _OURS and (
                one.name in self.training or one.name not in theirs or one.name in _ALWAYS
                or one.default != theirs[one.name]
            )
        ]  # fmt: skip
        made["training"] = {name: _plain(self.training.get(name, getattr(config, name))) for name in names}
        if self.training.get("max_steps", -1) == -1:
            made["training"].pop("max_steps", None)
        else:
            made["training"].pop("num_train_epochs", None)
        order = ("out", "seed", "data", "student", *_TABLES, "policy", "training")
        return {name: made[name] for name in dict.fromkeys(order) if made.get(name) is not None}

    def config(self, num_windows: int | None = None) -> DistillationConfig:
        """The settings of the trainer.

        Parameters
        ----------
        num_windows : int, optional
            Windows that there are to train on: what is given in parts of the training where it is given in epochs.
        """
        steps = self.num_steps(num_windows) or 1
        every = max(1, steps // 10)
        defaults = {"eval_strategy": "steps", "eval_steps": every, "logging_steps": every, "warmup_steps": steps // 20}
        settings = {**defaults, **self.training, "seed": self.seed, "data_seed": self.seed}
        settings["policy"] = None if self.policy is None else in_steps(self.policy, steps)
        try:
            return DistillationConfig(str(Path(self.out)), **settings)
        except ConfigError as error:
            raise ConfigError(f"training: {error}") from None
        except (ValueError, TypeError, ImportError) as error:  # transformers' own
            raise ConfigError(f"training: {(str(error).strip() or repr(error)).splitlines()[0]}") from error

    def tokens_a_step(self) -> int:
        """Tokens that a step reads in one process."""
        config = self.config()
        return config.per_device_train_batch_size * config.gradient_accumulation_steps * self.data.length


_TABLES: dict[str, type] = {
    "data": DataSettings,
    "corpus": CorpusSettings,
    "neural": NeuralSettings,
    "self": SelfSettings,
    "on_policy": OnPolicy,
    "quantization": QuantizationSettings,
}


def read_run(path: str | Path, changes: Mapping[str, Any] | None = None) -> RunSettings:
    """Read a training's TOML file, all of it checked.

    Parameters
    ----------
    path : str or Path
    changes : mapping, optional
        Tables that are laid over those of the file: what a study changes from arm to arm.

    Returns
    -------
    RunSettings
        Relative paths are taken from where the command runs, as everywhere.

    Raises
    ------
    InputError
        No such file, or no TOML.
    ConfigError
        As `make_run`.
    """
    try:
        table = read_toml(path)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    return make_run(merged(table, changes or {}))


def make_run(table: Mapping[str, Any]) -> RunSettings:
    """A training of tables, as TOML gives them.

    Raises
    ------
    ConfigError
        A key that isn't known, with the nearest one; a value out of range or of another type; tables that contradict
        each other.
    """
    top = ("out", "seed", "student", "policy", "training", *_TABLES)
    check_keys(table, top, "the file")
    for name in ("out", "data"):
        if name not in table:
            raise ConfigError(f"the file has no {name}: give it")
    if not isinstance(table["out"], str):
        raise ConfigError(f"out is {table['out']!r}: give the name of a folder")
    check_whole(table.get("seed", 0), "seed", 0)
    made: dict[str, Any] = {"out": table["out"], "seed": table.get("seed", 0)}
    for name, kind in _TABLES.items():
        if name in table:
            typed(table[name], {one.name: one.type for one in fields(kind)}, kind, name)
            made["self_" if name == "self" else name] = make_from(kind, table[name], name)
    made["student"] = _student(table.get("student", DEFAULT_STUDENT))
    made["training"] = _training(table.get("training", {}))
    if "policy" in table:
        make_policy(in_steps(table["policy"], 1))
        made["policy"] = dict(table["policy"])
    settings = RunSettings(**made)
    _check_together(settings)
    return settings


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over tables: a table joins a table, all else replaces; "remove" (a string) takes a key away."""
    made = dict(table)
    for key, value in changes.items():
        if value == "remove":
            made.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(made.get(key), Mapping):
            made[key] = merged(made[key], value)
        else:
            made[key] = value
    return made


def _student(table: Any) -> dict[str, Any]:
    """The student's table, its keys known to the model's own configuration."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"student is {table!r}: give a table with model_type and its settings, or with checkpoint")
    ngrams = make_ngram_table(table.get(_NGRAM_TABLE, False), f"student.{_NGRAM_TABLE}")
    more = {} if ngrams is None else {_NGRAM_TABLE: ngrams.to_dict()}
    table = {key: value for key, value in table.items() if key != _NGRAM_TABLE}
    if "checkpoint" in table:
        check_keys(table, ("checkpoint",), "student")
        return {**table, **more}
    made = {**({} if "model_type" in table else {"model_type": DEFAULT_STUDENT["model_type"]}), **table}
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    check_known(made["model_type"], known, "student.model_type")
    config = transformers.AutoConfig.for_model(made["model_type"])
    defaults = {*config.to_dict(), *config.attribute_map}
    for key in made:
        if key not in defaults:
            raise ConfigError(f"student has no key {key!r} for a {made['model_type']}: {nearest(key, defaults)}")
    return {**complete_student(made), **more}


def _whole_student(table: Mapping[str, Any]) -> dict[str, Any]:
    """A student's table with every setting of its model that a file may hold."""
    settings = {key: value for key, value in table.items() if key not in ("model_type", _NGRAM_TABLE)}
    try:
        told = transformers.AutoConfig.for_model(table["model_type"], **settings).to_dict()
    except Exception:  # told by who makes the model
        return dict(table)
    names = [name for name in told if name not in _NO_SETTING and not name.endswith("_token_id")]
    return {**table, **{name: told[name] for name in names if told[name] is not None}}


_NGRAM_TABLE = "ngram_table"

_NO_SETTING = {
    "transformers_version", "architectures", "dtype", "torch_dtype", "return_dict", "id2label", "label2id",
    "problem_type", "_name_or_path", "vocab_size", "use_cache", "is_encoder_decoder", "chunk_size_feed_forward",
    "output_attentions", "output_hidden_states", "model_type",
}  # fmt: skip
"""What a configuration says beside the model's own settings."""

_ALWAYS = (
    "max_steps", "num_train_epochs", "gradient_accumulation_steps", "max_grad_norm", "optim", "adam_beta1",
    "adam_epsilon", "bf16", "use_cpu", "dataloader_num_workers", "eval_strategy", "eval_steps", "logging_steps",
    "warmup_steps",
)  # fmt: skip
"""Settings of transformers that are shown even where they are its defaults."""


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _training(table: Any) -> dict[str, Any]:
    kinds = {one.name: one.type for one in fields(DistillationConfig) if one.name not in _OURS}
    if isinstance(table, Mapping):
        for key in table:
            if key in _OURS:
                where = "the table [policy]" if key == "policy" else "out" if key == "output_dir" else "seed"
                raise ConfigError(f"training has no key {key!r}: it is {where}, at the top of the file")
        for key in table:
            if key not in kinds and key in _OTHER_NAMES:
                raise ConfigError(f"training has no key {key!r}: did you mean {_OTHER_NAMES[key]!r}?")
    check_keys(table, list(kinds), "training")
    typed(table, kinds, DistillationConfig, "training")
    loggers = table.get("report_to", "none")
    for name in loggers if isinstance(loggers, (list, tuple)) else (loggers,):
        check_known(name, (*INTEGRATION_TO_CALLBACK, "all", "none"), "training.report_to")
    for key, known in (("save_strategy", SaveStrategy), ("eval_strategy", IntervalStrategy),
                       ("logging_strategy", IntervalStrategy), ("lr_scheduler_type", SchedulerType),
                       ("optim", OptimizerNames)):  # fmt: skip
        if isinstance(table.get(key), str):
            check_known(table[key], [one.value for one in known], f"training.{key}")
    return dict(table)


def _check_mass(value: object, name: str) -> None:
    """Refuse what is no share above 0."""
    if not is_number(value) or not 0 < value <= 1:  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}: give a share above 0 and at most 1")


def typed(table: Any, kinds: Mapping[str, Any], owner: type, where: str) -> None:
    """Refuse a value of another type than the field's: a text for a number, a fraction for a whole number."""
    if not isinstance(table, Mapping):
        return  # told better by who reads the table
    hints = typing.get_type_hints(owner)
    for key, value in table.items():
        plain = {one for one in _types_of(hints.get(key)) if one in (bool, int, float, str)} if key in kinds else set()
        if not plain or hints.get(key) in (Any, None):
            continue
        others = {one for one in _types_of(hints[key]) if one not in (bool, int, float, str, type(None))}
        fits = type(value) in plain or (float in plain and type(value) is int)
        fits = fits or (value is None and type(None) in _types_of(hints[key]))
        if not fits and not others:
            wanted = " or ".join(sorted({"bool": "true or false", "int": "a whole number", "float": "a number",
                                         "str": "a text"}[one.__name__] for one in plain))  # fmt: skip
            raise ConfigError(f"{where}.{key} is {value!r}: give {wanted}")


def _types_of(hint: Any) -> set[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return {one for part in typing.get_args(hint) for one in _types_of(part)}
    return {typing.get_origin(hint) or hint}


def _check_together(settings: RunSettings) -> None:
    """What no table can know alone."""
    soft = [name for name in ("corpus", "neural", "self_") if getattr(settings, name) is not None]
    told = None if settings.corpus is None else torch.ones(1)  # the unigrams, which the corpus teacher tells
    config = settings.config()
    Objective(config, {"self" if name == "self_" else name for name in soft}, told)
    if settings.corpus is not None and settings.corpus.inside is not None:
        with within("corpus"):
            Beside(True, "self_" in soft, settings.on_policy is not None, settings.corpus.form, config).check()
    if settings.corpus is not None and settings.data.train and settings.corpus.leave_out is None:
        raise ConfigError(
            "corpus.leave_out isn't given and data.train names a text of its own: say 'self' if that text is in the "
            "index too, 'none' if it isn't"
        )
    if settings.on_policy is not None and settings.on_policy.prompt_len >= settings.data.length:
        raise ConfigError(
            f"on_policy.prompt_len is {settings.on_policy.prompt_len} and data.length {settings.data.length}: "
            "leave room for what the student writes"
        )
    if settings.on_policy is not None and not {"corpus", "neural"} & set(soft):
        raise ConfigError("on_policy has no teacher to score the student's text: give [corpus] or [neural]")
