"""What a study says of its text, and of what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from corpus_teacher.data.documents import UNPACK_RATIO, check_unpack_ratio
from corpus_teacher.errors import ConfigError
from corpus_teacher.on_policy import check_drawing
from corpus_teacher.settings import check_keys, check_share, check_whole
from corpus_teacher.training.settings import CorpusSettings


@dataclass(frozen=True)
class DataPlan:
    """The text of a study.

    Parameters
    ----------
    sources : tuple of str
        "stdlib" (also "stdlib:code", "stdlib:help"), the standard library of the running Python; or sources as
        `corpus-teacher index build` takes them. A variable of the environment in them, as in "$PROSE/train.jsonl.zst",
        stands for a folder of this machine, which is no part of the study.
    tokenizer : str
        "train:VOCAB", trained on the training documents, or one that names its end of a document.
    indexes : dict of str to int or "all"
        Indexes by name, each of the first documents (in an order that only their texts decide) until so many tokens
        are reached. So a smaller one is always the beginning of a larger one.
    held_out_share, tune_share : float
        Shares of the documents that are evaluated on, and that the learning rates are chosen on.
    held_out_tokens, tune_tokens : int
        At most about so many tokens of them, and of each other domain; whole documents.
    max_overlap : float
        A document is not held out where more than this share of its 13-grams of tokens stands in the largest index.
    max_bytes : int, optional
        Read no more than about so many bytes.
    text_field : str
        Of .jsonl and .parquet files.
    unpack_ratio : float
        Of packed files; see `ReadOptions`.
    piece_characters : int, optional
        Cut the documents to train on into pieces of about that many characters, each a document of the indexes: what
        leaving a document out then leaves out. They are read in an order that only their texts decide, so that an
        index of few tokens has pieces of many documents. Documents that are evaluated on stay whole.
    held_out_characters : int, optional
        Of each document that is evaluated on only about so many characters, from its middle: more documents for as many
        tokens.
    """

    sources: tuple[str, ...] = ("stdlib",)
    tokenizer: str = "train:2048"
    indexes: dict[str, Any] = field(default_factory=lambda: {"train": "all"})
    held_out_share: float = 0.08
    tune_share: float = 0.04
    held_out_tokens: int = 100_000
    tune_tokens: int = 50_000
    max_overlap: float = 0.3
    max_bytes: int | None = None
    text_field: str = "text"
    unpack_ratio: float = UNPACK_RATIO
    piece_characters: int | None = None
    held_out_characters: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", texts_of(self.sources, "sources"))
        for name in ("held_out_share", "tune_share", "max_overlap"):
            check_share(getattr(self, name), name)
        for name in ("held_out_tokens", "tune_tokens"):
            check_whole(getattr(self, name), name, 1)
        check_unpack_ratio(self.unpack_ratio)
        for name in ("piece_characters", "held_out_characters"):
            if getattr(self, name) is not None:
                check_whole(getattr(self, name), name, 1)
        if not 0 < self.held_out_share + self.tune_share < 1:
            raise ConfigError(
                f"held_out_share and tune_share are {self.held_out_share} and {self.tune_share}: leave documents for "
                "both training and evaluation"
            )
        if not isinstance(self.indexes, Mapping) or not self.indexes:
            raise ConfigError(f"indexes is {self.indexes!r}: give a table of names and numbers of tokens")
        for name, size in self.indexes.items():
            if size != "all":
                check_whole(size, f"indexes.{name}", 1)


@dataclass(frozen=True)
class MetricPlan:
    """What is measured of a finished student beside its held-out loss, and how much of it.

    Parameters
    ----------
    teacher : dict
        Table of the corpus teacher that fidelity is measured to, the same for every arm; over the run's own index.
    context_order : int
        Tokens of the contexts whose counts make the buckets of context_count.
    counts : dict
        The estimator of the counts at inference: "estimator" and "max_order", on the index that is read. Every finished
        student is evaluated with and without them. An empty table: without alone.
    fidelity_tokens, induction_rows, extraction_prompts, samples : int
        How many; 0 leaves the measure out.
    extraction_length : int
        Tokens of the prompt, and of the continuation that has to be verbatim.
    """

    teacher: dict[str, Any] = field(default_factory=dict)
    context_order: int = 3
    counts: dict[str, Any] = field(default_factory=lambda: {"estimator": "modified-kneser-ney", "max_order": 5})
    fidelity_tokens: int = 16_384
    induction_rows: int = 64
    extraction_prompts: int = 128
    extraction_length: int = 16
    samples: int = 32

    def __post_init__(self) -> None:
        check_whole(self.context_order, "context_order", 1)
        check_whole(self.extraction_length, "extraction_length", 1)
        for name in ("fidelity_tokens", "induction_rows", "extraction_prompts", "samples"):
            check_whole(getattr(self, name), name, 0)
        check_keys(self.counts, ("estimator", "max_order"), "counts")
        known = [one.name for one in fields(CorpusSettings) if one.name not in ("index", "leave_out", "form")]
        check_keys(self.teacher, known, "teacher")


@dataclass(frozen=True)
class TextPlan:
    """How the text is written that an arm reads where its data.train names another arm.

    Parameters
    ----------
    prompt_tokens : int
        Windows begin with the first so many tokens of those that the arm would read otherwise. 0: with the beginning of
        a document.
    temperature : float
    top_k : int, optional
    top_p : float
        How the rest is drawn.
    best_of : int
        Of so many continuations the one that the writer gives the highest probability is kept.
    real_share : float
        Share of the windows that aren't written, but those that the arm would read otherwise.
    """

    prompt_tokens: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    best_of: int = 1
    real_share: float = 0.0

    def __post_init__(self) -> None:
        check_whole(self.prompt_tokens, "prompt_tokens", 0)
        check_whole(self.best_of, "best_of", 1)
        check_share(self.real_share, "real_share")
        check_drawing(self.temperature, self.top_k, self.top_p)


def texts_of(said: Any, name: str) -> tuple[str, ...]:
    """Sources, of a text or a list of them.

    Raises
    ------
    ConfigError
        Anything else, or an empty list.
    """
    texts = (said,) if isinstance(said, str) else said
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{name} is {said!r}: give a list of files, folders or globs, or 'stdlib'")
    return tuple(texts)
