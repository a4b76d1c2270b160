"""From the tables of a training's file to its parts: each table is opened once, by a function of its own.

`open_training` opens them and looks whether they go together: indexes and caches are opened, sources are looked up, and
the student is made without weights, on torch's "meta" device, which shows what its configuration can't be. No text is
read and no weight is made or loaded: a mere check stops there. `Opened.make` goes on with the very same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from corpus_teacher.data import TokenWindows
from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.held_out import HeldOut, read_held_out
from corpus_teacher.data.opening import check_estimator, index_tokenizer, open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import Inventory, find_sources
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, CorpusIndexError, InputError
from corpus_teacher.neural import CachedTeacher, EmaTeacher, NeuralTeacher, TargetFormat
from corpus_teacher.neural.pretrained import check_model
from corpus_teacher.quantization import check_torchao
from corpus_teacher.students import CorpusStudent, Residual, make_ngram_table, with_corpus, with_ngram_table
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.teaching import Teacher, Teachers
from corpus_teacher.training.settings import CorpusSettings, DataSettings, NeuralSettings, RunSettings, SelfSettings
from corpus_teacher.training.student import load_student, make_student

_PROBE_SIZE, _PROBE_S, _USED = 1024, 0.1, 0.4  # a student reaches some 40 % of the speed of a plain product


@dataclass(frozen=True)
class Parts:
    """All that a training is made of.

    Attributes
    ----------
    student : PreTrainedModel
    train, held_out : TokenWindows
    held_out_bytes : int or None
        UTF-8 bytes of the tokens that the held-out windows predict: those of the text in proportion to the tokens.
    teachers : Teachers
    tokenizer : Tokenizer or None
    index : CorpusIndex
        Of the data.
    """

    student: transformers.PreTrainedModel
    train: TokenWindows
    held_out: TokenWindows
    held_out_bytes: int | None
    teachers: Teachers
    tokenizer: Tokenizer | None
    index: Any


@dataclass(frozen=True)
class Plan:
    """What a training will be, as far as it is known before anything is read.

    Attributes
    ----------
    parameters : int
        Of the student; tied weights count once.
    table_parameters : int
        Those of them that are a table of n-grams, which no product of matrices reads.
    windows : int or None
        That there are to train on; None where a text has yet to be read for it.
    steps, tokens : int or None
        Of the whole training, all processes together.
    seconds : float or None
        About, on this machine, without teachers and evaluations: 6 operations per parameter and token, by the speed of
        a product of matrices measured now.
    """

    parameters: int
    table_parameters: int
    windows: int | None
    steps: int | None
    tokens: int | None
    seconds: float | None


@dataclass(frozen=True)
class Opened:
    """A training whose tables are open; made by `open_training`.

    Attributes
    ----------
    settings : RunSettings
    data : OpenData
    student : OpenStudent
    corpus, neural : callable or None
        Make the teacher.
    self_teacher : callable or None
        Makes it of the student.
    """

    settings: RunSettings
    data: OpenData
    student: OpenStudent
    corpus: Callable[[], CorpusTeacher] | None = None
    neural: Callable[[], Teacher] | None = None
    self_teacher: Callable[[transformers.PreTrainedModel], Teacher] | None = None

    def make(self, reading: Progress = silent) -> Parts:
        """Read the text, and make or load student and teachers.

        Parameters
        ----------
        reading : callable, optional
            Called with how far texts are read.

        Raises
        ------
        InputError, TokenizerError, ConfigError, IndexFormatError, CacheError
            What only shows when it is read or made.
        """
        train, held_out, num_bytes = self.data.read(self.settings.seed, reading)
        student = self.student.make()
        teachers = Teachers(
            None if self.corpus is None else self.corpus(),
            None if self.neural is None else self.neural(),
            None if self.self_teacher is None else self.self_teacher(student),
        )
        if teachers.corpus is not None and self.way is not None:
            student = with_corpus(student, teachers.corpus, self.way)
        return Parts(student, train, held_out, num_bytes, teachers, self.data.tokenizer, self.data.index)

    @property
    def way(self) -> Any:
        """How the corpus is inside of the student; None where it isn't."""
        return None if self.settings.corpus is None else self.settings.corpus.inside

    def plan_steps(self) -> int | None:
        """Steps of the whole training; None where a text has yet to be read for it."""
        return self.settings.num_steps(self.data.num_windows)

    def plan(self) -> Plan:
        """What the training will be; a tenth of a second is spent on the machine's speed."""
        windows, steps = self.data.num_windows, self.plan_steps()
        tokens = None if steps is None else steps * self.settings.tokens_a_step() * self.settings.num_processes()
        seconds = None
        if tokens is not None:
            read = self.student.parameters - self.student.table_parameters
            seconds = 6 * read * tokens / (_USED * _flops(self.settings.config(windows).device))
        gates = isinstance(self.way, Residual)
        return Plan(self.student.parameters + gates, self.student.table_parameters, windows, steps, tokens, seconds)


@contextmanager
def open_training(settings: RunSettings) -> Iterator[Opened]:
    """Open all tables of a training; indexes are closed at the end.

    Raises
    ------
    ConfigError, InputError, IndexFormatError, QueryError, TokenizerError, CacheError
        What isn't there or doesn't fit, by the table that names it.
    """
    with ExitStack() as stack:
        data = open_data(settings.data, stack)
        index = data.index
        student = open_student(settings, index)
        corpus = neural = own = None
        if settings.corpus is not None:
            corpus = open_corpus(settings.corpus, settings.data.index, index, stack)
        if settings.neural is not None:
            neural = open_neural(settings.neural, index.vocab_size, data.tokenizer)
        if settings.self_ is not None:
            own = open_self(settings.self_, index.vocab_size)
        yield Opened(settings, data, student, corpus, neural, own)


@contextmanager
def assembled(settings: RunSettings, reading: Progress = silent) -> Iterator[Parts]:
    """All parts of a training; the indexes are closed at the end."""
    with open_training(settings) as opened:
        yield opened.make(reading)


# [data]


@dataclass(frozen=True)
class OpenData:
    """The text of a training, found and not yet read.

    Attributes
    ----------
    settings : DataSettings
    index : CorpusIndex
    tokenizer : Tokenizer or None
        The index's, where it has one.
    held_out, train : Inventory
        What their sources are; train is None where the index's own text is read.
    """

    settings: DataSettings
    index: Any
    tokenizer: Tokenizer | None
    held_out: Inventory
    train: Inventory | None

    @property
    def num_windows(self) -> int | None:
        """Windows to train on; None where a text has yet to be read for it."""
        said = self.settings
        limit = None if said.train_tokens is None else said.train_tokens // said.length
        if said.train:
            return limit
        there = int(self.index.num_tokens) // said.length
        return there if limit is None else min(there, limit)

    def read(self, seed: int, reading: Progress) -> tuple[TokenWindows, TokenWindows, int | None]:
        """Windows to train on and to evaluate on, and the bytes that the latter predict, where they are known."""
        said, index = self.settings, self.index
        options: dict[str, Any] = {
            "read": ReadOptions(text_field=said.text_field, unpack_ratio=said.unpack_ratio),
            "dtype": said.token_dtype,
            "progress": reading,
        }
        held_out = read_held_out(index, self.held_out, self.tokenizer, limit=said.held_out_tokens, **options)
        tokens, starts = index.tokens, index.doc_starts
        if self.train is not None:
            corpus = read_held_out(index, self.train, self.tokenizer, **options).corpus
            tokens, starts = corpus.tokens, corpus.doc_starts
        limit = None if said.train_tokens is None else said.train_tokens // said.length
        train = TokenWindows(tokens, said.length, seed=seed, doc_starts=starts, limit=limit)
        windows = TokenWindows(
            held_out.corpus.tokens, said.length, doc_starts=held_out.corpus.doc_starts, shuffle=False
        )
        return train, windows, _predicted_bytes(held_out, windows)


def open_data(said: DataSettings, stack: ExitStack) -> OpenData:
    """[data]: the index is opened, sources are found."""
    with _within("data.index"):
        index = stack.enter_context(open_index(said.index))
        tokenizer = index_tokenizer(index) if index.metadata.get("tokenizer") else None
    found: dict[str, Inventory | None] = {"train": None}
    for name in ("train", "held_out"):
        sources = list(getattr(said, name))
        if sources:
            with _within(f"data.{name}"):
                found[name] = find_sources(sources)
    return OpenData(said, index, tokenizer, **found)  # type: ignore[arg-type]


def _predicted_bytes(held_out: HeldOut, windows: TokenWindows) -> int | None:
    """Bytes of the predicted tokens: those of the text in proportion; None where they are unknown."""
    if not held_out.corpus.num_bytes:
        return None
    predicted = len(windows) * (windows.length - 1)
    return round(held_out.corpus.num_bytes * predicted / len(held_out.corpus.tokens))


# [student], [quantization]


@dataclass(frozen=True)
class OpenStudent:
    """A student without its weights.

    Attributes
    ----------
    make : callable
        Gives it with its weights.
    config : PretrainedConfig
    parameters : int
        Tied weights count once.
    table_parameters : int
        Those of them that are a table of n-grams.
    """

    make: Callable[[], transformers.PreTrainedModel]
    config: Any
    parameters: int
    table_parameters: int = 0


def open_student(settings: RunSettings, index: Any) -> OpenStudent:
    """[student], and [quantization] of it: made without weights, or the folder that it goes on from looked up."""
    vocab_size, end = index.vocab_size, index.end_of_document
    with _within("student"):
        checkpoint = settings.student.get("checkpoint")
        table = make_ngram_table(settings.student.get("ngram_table", False))
        with torch.device("meta"):
            if checkpoint is not None:
                _check_model_folder(checkpoint)
                config = transformers.AutoConfig.from_pretrained(checkpoint)
                outline = _with_table(transformers.AutoModelForCausalLM.from_config(config), table, end)
            else:
                outline = make_student(settings.student, vocab_size=vocab_size, end_token=end)
        _check_length(outline.config, settings.data.length)
    if settings.quantization is not None:
        with _within("quantization"):
            check_torchao()

    def make() -> transformers.PreTrainedModel:
        if checkpoint is not None:
            student = _with_table(load_student(checkpoint, vocab_size=vocab_size), table, end)
        else:
            student = make_student(settings.student, vocab_size=vocab_size, seed=settings.seed, end_token=end)
        if settings.quantization is not None:
            from corpus_teacher.quantization import fake_quantize

            fake_quantize(student, **asdict(settings.quantization))
        return student

    of_table = outline.table if isinstance(outline, CorpusStudent) else None
    table_parameters = 0 if of_table is None else sum(one.numel() for one in of_table.parameters())
    return OpenStudent(make, outline.config, outline.num_parameters(), table_parameters)


def _with_table(student: transformers.PreTrainedModel, table: Any, end: int | None) -> transformers.PreTrainedModel:
    """A student that was loaded, with the table of n-grams that it is asked to get."""
    if table is None:
        return student
    if isinstance(student, CorpusStudent) and student.table is not None:
        raise ConfigError("ngram_table is given and the checkpoint has a table already: leave one of them out")
    return with_ngram_table(student, table, end)


def _check_length(config: Any, length: int) -> None:
    """Refuse windows that are longer than the student reads."""
    longest = getattr(config, "max_position_embeddings", None) or length
    if length > longest:
        raise ConfigError(
            f"data.length is {length} and the student reads at most {longest} tokens: "
            "shorten the windows, or raise max_position_embeddings"
        )


def _check_model_folder(path: str) -> None:
    if not (Path(path) / "config.json").is_file():
        raise InputError(f"{path!r} is no folder with a model of transformers (config.json): name one")


# [corpus]


def open_corpus(said: CorpusSettings, data_index: str, index: Any, stack: ExitStack) -> Callable[[], CorpusTeacher]:
    """[corpus]: its own index, if it has one, is opened, and the estimator looked up."""
    own = index
    other = said.index is not None and Path(said.index).resolve() != Path(data_index).resolve()
    if other and said.leave_out is None:
        raise ConfigError(
            "corpus.leave_out isn't given and corpus.index is another index than data.index: say 'self' if the "
            "training text is in it too, 'none' if it isn't"
        )
    with _within("corpus"):
        if other:
            own = stack.enter_context(open_index(str(said.index)))
            _check_same_tokens(own, index)
        check_estimator(own, said.estimator, said.max_order)
    options = {name: getattr(said, name) for name in ("estimator", "max_order", "top_k", "top_p", "recall")}
    if said.leave_out is not None:
        options["leave_out"] = None if said.leave_out == "none" else said.leave_out
    return lambda: CorpusTeacher(own, **options)


def _check_same_tokens(other: Any, index: Any) -> None:
    """Refuse a larger index with another vocabulary or tokenizer."""
    if other.vocab_size != index.vocab_size:
        raise ConfigError(
            f"corpus.index has {other.vocab_size} tokens and data.index {index.vocab_size}: "
            "build both with one tokenizer"
        )
    ours, theirs = (one.metadata.get("tokenizer") or {} for one in (index, other))
    if ours.get("fingerprint") != theirs.get("fingerprint"):
        raise ConfigError("corpus.index and data.index have different tokenizers: build both with one")


# [neural]


def open_neural(said: NeuralSettings, vocab_size: int, tokenizer: Tokenizer | None) -> Callable[[], Teacher]:
    """[neural]: a cache is opened; of a live model the configuration is read."""
    with _within("neural"):
        if said.cache is not None:
            cached = CachedTeacher(
                said.cache, vocab_size=vocab_size, student_tokenizer=tokenizer, k=said.k, missing=said.missing
            )
            return lambda: cached
        check_model(str(said.model))
    kept = TargetFormat(said.keep, k=said.k or 64, p=said.p, draws=said.draws, precision=said.precision)
    dtype = None if said.dtype is None else getattr(torch, said.dtype)

    def make() -> Teacher:
        with _within("neural"):
            return NeuralTeacher(
                str(said.model),
                vocab_size=vocab_size,
                student_tokenizer=tokenizer,
                kept=kept,
                rows=said.rows,
                dtype=dtype,
            )

    return make


# [self]


def open_self(said: SelfSettings, vocab_size: int) -> Callable[[transformers.PreTrainedModel], Teacher]:
    """[self]: the folder of an earlier checkpoint is looked up; an average is made of the student."""
    whole = TargetFormat("all")
    if said.checkpoint is None:
        return lambda student: EmaTeacher(student, decay=said.decay, warm_up=said.warm_up, kept=whole)
    path = said.checkpoint
    with _within("self"):
        _check_model_folder(path)
    return lambda student: NeuralTeacher(load_student(path, vocab_size=vocab_size), kept=whole)


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Say which table of the file an error is about."""
    try:
        yield
    except CorpusIndexError as error:
        raise type(error)(f"{where}: {error}") from error


def _flops(device: torch.device) -> float:
    """Operations per second of a product of float32 matrices here."""
    one = torch.ones(_PROBE_SIZE, _PROBE_SIZE, device=device)
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < _PROBE_S:
        one @ one
        products += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return products * 2 * _PROBE_SIZE**3 / (time.perf_counter() - began)
