"""What documents are sampled from: a language model, the corpus teacher of an index, or the mixture of the two.

A sampler begins with rows of tokens and then draws and appends one token a row at a time. All rows of a batch have the
same length at all times (`sampling` forces the tokens of longer prompts), so that no row is padded, and a model sees
each document as if it were alone.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from corpus_index import CorpusIndex, Estimator, SparseTargets
from torch import Tensor

from corpus_teacher.data.drawing import Drawer, DrawOptions
from corpus_teacher.errors import ConfigError
from corpus_teacher.neural import NeuralTeacher
from corpus_teacher.synthesis.dense_drawing import draw_tokens

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_CROWDED = 0.75  # share of rows in the cache that must still be written, else the others leave it


class Contexts(Protocol):
    """Rows of text that grow by a token at a time."""

    def draw(self, options: DrawOptions, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """A token for each row and the log-probability (nats) that the teacher gives it before temperature and cuts."""

    def advance(self, tokens: Ints, stay: Ints) -> None:
        """Append tokens (n,), one a row, and go on with the rows `stay` only."""


class Sampler(Protocol):
    """What documents are sampled from."""

    vocab_size: int
    end_of_document: int | None
    longest: int | None
    """Tokens of a document at most, its prompt included; None: no bound."""

    def begin(self, rows: Ints) -> Contexts:
        """Contexts of documents that begin with these tokens, shape (n, P); P may be 0."""

    def identity(self) -> dict[str, Any]:
        """Who teaches, for the record."""


class CorpusSampler:
    """Samples from an estimator over an index, one sparse target a step.

    Parameters
    ----------
    index : CorpusIndex
    estimator : str or Estimator
    max_order : int, optional
        Tokens of the longest context; None: no bound, and a cost that grows with the text. An `Estimator` has its own.
    explicit : int, optional
        At most so many explicit tokens a target, the rest of the mass on the base; None: the exact distribution.

    Raises
    ------
    ConfigError, QueryError
        An option out of range.
    """

    longest: int | None = None

    def __init__(
        self,
        index: CorpusIndex,
        *,
        estimator: str | Estimator = "witten-bell",
        max_order: int | None = 5,
        explicit: int | None = None,
    ) -> None:
        if explicit is not None and explicit < 1:
            raise ConfigError(f"explicit is {explicit}: keep at least 1 token a target")
        self.index = index
        self.estimator = index.fitted(estimator, max_order)
        self.explicit = explicit
        self.vocab_size = index.vocab_size
        self.end_of_document = index.end_of_document

    def begin(self, rows: Ints) -> _CorpusContexts:
        """See `Sampler`.

        Raises
        ------
        ConfigError
            Empty rows, with an index that has no end-of-document token to begin after.
        """
        if self.end_of_document is not None:
            rows = np.insert(rows, 0, self.end_of_document, axis=1)  # a context starts anew after it
        if rows.shape[1] == 0:
            raise ConfigError(
                f"the index {self.index.path} has no end-of-document token that a text could begin after: give prompts"
            )
        return _CorpusContexts(self, rows)

    def identity(self) -> dict[str, Any]:
        """See `Sampler`."""
        return {
            "kind": "corpus",
            "index": self.index.fingerprint,
            "estimator": self.estimator.name,
            "max_order": self.estimator.max_order,
            "explicit": self.explicit,
        }


class _CorpusContexts:
    """The last tokens of each row, as many as the estimator looks at."""

    def __init__(self, sampler: CorpusSampler, rows: Ints) -> None:
        self.sampler = sampler
        self.window = sampler.estimator.max_order
        self.rows = rows
        self.is_whole = sampler.end_of_document is None
        self._drawer: Drawer | None = None
        self._cut()

    def targets(self) -> SparseTargets:
        """Of what follows each row."""
        explicit = self.sampler.explicit
        return self.sampler.index.smoothed_targets(
            self.rows,
            estimator=self.sampler.estimator,
            top_k=explicit or self.sampler.vocab_size,
            shortlist=explicit,
            starts_document=self.is_whole,
            only_last=True,
        )

    def draw(self, options: DrawOptions, generator: np.random.Generator) -> tuple[Ints, Floats]:
        targets = self.targets()
        if self._drawer is None:
            self._drawer = Drawer(targets.base, options, generator)
        tokens = self._drawer.draw(targets)
        return tokens, np.log(probabilities_of(targets, tokens))

    def advance(self, tokens: Ints, stay: Ints) -> None:
        self.rows = np.concatenate([self.rows, tokens[:, None]], axis=1)[stay]
        self._cut()

    def _cut(self) -> None:
        if self.window is not None and self.rows.shape[1] > max(1, self.window):
            self.rows = self.rows[:, -max(1, self.window) :]
            self.is_whole = False


class NeuralSampler:
    """Samples from a causal language model, with its cache of keys and values.

    Parameters
    ----------
    teacher : NeuralTeacher
    start_token : int, optional
        The token that every text begins after, and that isn't part of it; by default the tokenizer's end of a document,
        as in packed training rows.

    Raises
    ------
    ConfigError
        A start token outside of the vocabulary.
    """

    def __init__(self, teacher: NeuralTeacher, *, start_token: int | None = None) -> None:
        self.teacher = teacher
        self.vocab_size = teacher.vocab_size
        self.end_of_document = teacher.tokenizer.end_of_document if teacher.tokenizer else None
        self.start_token = self.end_of_document if start_token is None else start_token
        if self.start_token is not None and not 0 <= self.start_token < self.vocab_size:
            raise ConfigError(f"the start token {self.start_token} is outside of the {self.vocab_size:,} tokens")
        positions = getattr(teacher.model.config, "max_position_embeddings", None)
        self.longest = None if positions is None else int(positions) - (self.start_token is not None)
        taken = inspect.signature(teacher.model.forward).parameters
        self.keeps_logits = "logits_to_keep" in taken
        self.cache_name = "cache" if "cache" in taken else "past_key_values"  # of older transformers

    def begin(self, rows: Ints) -> _NeuralContexts:
        """See `Sampler`.

        Raises
        ------
        ConfigError
            Empty rows without a start token; a model without a cache of keys and values.
        """
        if self.start_token is not None:
            rows = np.insert(rows, 0, self.start_token, axis=1)
        if rows.shape[1] == 0:
            raise ConfigError(
                f"the tokenizer of {self.teacher.name!r} names no end of a document that a text could begin after: "
                "give prompts, or a start token"
            )
        return _NeuralContexts(self, rows)

    def identity(self) -> dict[str, Any]:
        """See `Sampler`."""
        return {"kind": "neural", **self.teacher.identity(), "start_token": self.start_token}


class _NeuralContexts:
    """The keys and values of all rows so far, and the logits after them."""

    def __init__(self, sampler: NeuralSampler, rows: Ints) -> None:
        self.sampler = sampler
        self.cache: Any = None
        self.alive = np.arange(rows.shape[0])  # places of our rows among those of the cache
        self._feed(rows)

    def probs(self) -> Tensor:
        """Of what follows each row: shape (n, V), float32."""
        return self.logits.float().softmax(-1)

    def draw(self, options: DrawOptions, generator: np.random.Generator) -> tuple[Ints, Floats]:
        return draw_tokens(self.probs(), options, generator)

    def advance(self, tokens: Ints, stay: Ints) -> None:
        size = self.num_cached
        fed = np.zeros(size, np.int64)  # rows that have ended go on with token 0 until they leave the cache
        fed[self.alive] = tokens
        self.alive = self.alive[stay]
        if self.alive.size < _CROWDED * size and self._can_shrink:
            self.cache.batch_select_indices(torch.from_numpy(self.alive).to(self.sampler.teacher.device))
            fed = fed[self.alive]
            self.alive = np.arange(self.alive.size)
        self._feed(fed[:, None])

    @property
    def _can_shrink(self) -> bool:
        """Whether rows can leave the cache; not from that of a recurrent model."""
        return all(hasattr(layer, "batch_select_indices") for layer in getattr(self.cache, "layers", [self.cache]))

    def _feed(self, rows: Ints) -> None:
        sampler, model = self.sampler, self.sampler.teacher.model
        options: dict[str, Any] = {sampler.cache_name: self.cache}
        if sampler.keeps_logits:
            options["logits_to_keep"] = 1
        ids = torch.from_numpy(np.ascontiguousarray(rows)).to(sampler.teacher.device)
        with sampler.teacher.teaching():
            output = model(input_ids=ids, use_cache=True, **options)
        self.cache = getattr(output, sampler.cache_name, None)
        if self.cache is None:
            raise ConfigError(
                f"the model {sampler.teacher.name!r} keeps no keys and values of what it has read: use a causal "
                "transformer"
            )
        self.num_cached = rows.shape[0]
        alive = torch.from_numpy(self.alive).to(sampler.teacher.device)
        self.logits = output.logits[alive, -1, : sampler.vocab_size]


class MixedSampler:
    """Samples each token from w · corpus + (1 − w) · neural.

    Parameters
    ----------
    corpus : CorpusSampler
    neural : NeuralSampler
    corpus_weight : float
        w, 0 to 1.

    Raises
    ------
    ConfigError
        A weight out of range; another vocabulary or another end of a document.
    """

    def __init__(self, corpus: CorpusSampler, neural: NeuralSampler, *, corpus_weight: float = 0.5) -> None:
        if not 0 <= corpus_weight <= 1:
            raise ConfigError(f"the weight of the corpus is {corpus_weight}: give a number from 0 to 1")
        if (corpus.vocab_size, corpus.end_of_document) != (neural.vocab_size, neural.end_of_document):
            raise ConfigError(
                f"the index has {corpus.vocab_size:,} tokens and ends documents with {corpus.end_of_document}, the "
                f"model has {neural.vocab_size:,} and {neural.end_of_document}: give both the same tokenizer"
            )
        self.corpus, self.neural, self.corpus_weight = corpus, neural, corpus_weight
        self.vocab_size = corpus.vocab_size
        self.end_of_document = corpus.end_of_document
        self.longest = neural.longest

    def begin(self, rows: Ints) -> _MixedContexts:
        """See `Sampler`."""
        return _MixedContexts(self, rows)

    def identity(self) -> dict[str, Any]:
        """See `Sampler`."""
        parts = {"corpus": self.corpus.identity(), "neural": self.neural.identity()}
        return {"kind": "mixed", "corpus_weight": self.corpus_weight, **parts}


class _MixedContexts:
    """The contexts of both."""

    def __init__(self, sampler: MixedSampler, rows: Ints) -> None:
        self.weight = sampler.corpus_weight
        self.corpus = sampler.corpus.begin(rows)
        self.neural = sampler.neural.begin(rows)

    def probs(self) -> Tensor:
        """Of what follows each row: shape (n, V), float64."""
        neural = self.neural.probs().double()
        corpus = torch.from_numpy(dense_probabilities(self.corpus.targets())).to(neural.device)
        return self.weight * corpus + (1 - self.weight) * neural

    def draw(self, options: DrawOptions, generator: np.random.Generator) -> tuple[Ints, Floats]:
        return draw_tokens(self.probs(), options, generator)

    def advance(self, tokens: Ints, stay: Ints) -> None:
        self.corpus.advance(tokens, stay)
        self.neural.advance(tokens, stay)


def dense_probabilities(targets: SparseTargets) -> Floats:
    """Sparse targets written out, shape (Q, V); what rounding left below 0 is 0."""
    rows = np.repeat(np.arange(targets.rest.size), np.diff(targets.offsets))
    dense = targets.rest[:, None].astype(np.float64) * targets.base[None]
    dense[rows, targets.token_ids] += targets.probs
    return np.maximum(dense, 0.0)


def probabilities_of(targets: SparseTargets, tokens: Ints) -> Floats:
    """The probability of one token a position, shape (Q,)."""
    size = targets.base.size
    probs = targets.rest.astype(np.float64) * targets.base[tokens]
    if targets.token_ids.size == 0:
        return probs
    keys = np.repeat(np.arange(targets.rest.size), np.diff(targets.offsets)) * size + targets.token_ids  # ascending
    wanted = np.arange(tokens.size) * size + tokens
    places = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return probs + np.where(keys[places] == wanted, targets.probs[places], 0.0)
