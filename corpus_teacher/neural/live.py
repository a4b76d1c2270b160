"""A language model as a teacher, asked on the spot: (B, T) token ids in, one soft target a position out.

The naive teacher keeps ``model(input_ids).logits``, of shape (B, T, V). Here the body of the model runs on a few rows
at a time, its output embedding on a few positions at a time, and each chunk of logits shrinks to a sparse target
before the next one is made. A position sees its row up to itself, whatever documents the row holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, TokenizerError
from corpus_teacher.neural.coding import RecordCodec
from corpus_teacher.neural.formats import SparseRows, TargetFormat, soft_targets, sparsify, uniforms_of
from corpus_teacher.neural.identity import (
    check_same_tokenizer,
    check_vocabulary,
    log_cut,
    model_fingerprint,
    token_rows,
    window_keys,
)
from corpus_teacher.neural.pretrained import known_device, load_model, load_model_tokenizer
from corpus_teacher.targets import AnyTargets, DenseTargets
from corpus_teacher.teaching import ContentTeacher

CHUNK_ELEMENTS = 1 << 23
"""Logits that exist at once, about: 32 MB in float32."""

_PROBE_TOKENS = 8
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")

LogitChunk = tuple[int, int, Tensor]


class LogitSource(Protocol):
    """What gives logits chunk by chunk: a live model, or a cache of hidden states."""

    @property
    def vocab_size(self) -> int:
        """V."""

    def logit_chunks(self, input_ids: npt.ArrayLike | Tensor) -> Iterator[LogitChunk]:
        """(lo, hi, logits) over the B · T positions in their order; logits of shape (hi − lo, V)."""


class NeuralTeacher(ContentTeacher):
    """A causal language model of transformers as a teacher.

    Parameters
    ----------
    model : PreTrainedModel, str or Path
        A model, which stays where it is and gets back its training mode after each call; or what `load_model` loads:
        a folder, an earlier checkpoint of a student, a name, a GGUF file, "smollm2".
    vocab_size : int, optional
        V of the student or index. Refused unless the model has just these tokens, or more that are padding: beyond
        its tokenizer's, or V rounded up as models are. Their logits are left out, which is logged.
    tokenizer : Tokenizer, str or Path, optional
        The teacher's own, as `load_tokenizer` loads it; by default the one beside a loaded model.
    student_tokenizer : Tokenizer, str, Path or CorpusIndex, optional
        The student's, or the index's: refused unless it does what the teacher's own does, or its tokens have the same
        ids in it; then the targets are cut to the student's tokens, which is logged.
    kept : TargetFormat
        What of each distribution becomes the target; all of it with "all", or with "hidden" as a cache of its hidden
        states would give it back.
    base : array_like of shape (V,), optional
        What the mass beyond the kept tokens is spread as; uniform by default.
    tail : {"base", "renormalize"}
        See `soft_targets`.
    dtype : torch.dtype, optional
        Of the weights; a given model is converted in place.
    device : torch.device or str, optional
        Where the model is moved to, and the targets are made.
    rows : int
        Rows that the body of the model sees at once.

    Raises
    ------
    InputError
        No such model.
    ConfigError
        A vocabulary or base that doesn't fit, or a setting out of range.
    TokenizerError
        Another tokenizer than the student's, or none to compare.

    Examples
    --------
    >>> config = transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=8)
    >>> model = transformers.AutoModelForCausalLM.from_config(config)
    >>> teacher = NeuralTeacher(model, kept=TargetFormat("top-k", k=4))
    >>> targets = teacher([[1, 2, 3]])
    >>> targets.num_positions, targets.token_ids.shape[0]
    (3, 12)
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel | str | Path,
        *,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | str | Path | None = None,
        student_tokenizer: Any = None,
        kept: TargetFormat | None = None,
        base: npt.ArrayLike | Tensor | None = None,
        tail: str = "base",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        rows: int = 8,
    ) -> None:
        if rows < 1:
            raise ConfigError(f"rows is {rows}: give the model at least 1 row at once")
        if device is not None:
            device = known_device(device)
        if isinstance(model, (str, Path)):
            self.name = str(model)
            tokenizer = load_model_tokenizer(model) if tokenizer is None else tokenizer
            model = load_model(model, dtype=dtype)
            model.requires_grad_(False)
        else:
            self.name = model.config.name_or_path or type(model).__name__
        self.tokenizer = _loaded(tokenizer)
        cut = None
        if student_tokenizer is not None:
            if self.tokenizer is None:
                raise TokenizerError(
                    f"the teacher {self.name!r} comes without a tokenizer, so that nobody can tell whether it is "
                    "the student's: give its own as tokenizer"
                )
            cut = check_same_tokenizer(self.tokenizer, _loaded(student_tokenizer))
        if device is not None or dtype is not None:
            torch.nn.Module.to(model, device=device, dtype=dtype)
        self.model = model
        self.rows = rows
        self.kept = kept or TargetFormat()
        self.tail = tail
        model_size = int(model.get_output_embeddings().weight.shape[0])
        if cut is not None and vocab_size in (None, cut) and cut <= model_size:
            more = f"{self.tokenizer.vocab_size - cut:,} tokens" if self.tokenizer else "tokens"
            log_cut(f"its tokenizer has {more} beyond the student's {cut:,}, whose ids are the same")
            self._vocab_size = cut
        else:
            self._vocab_size = check_vocabulary(model_size, vocab_size, self.tokenizer)
        if self.kept.kind != "hidden":
            self.kept.check_vocabulary(self._vocab_size)
        self.base = base_distribution(base, self._vocab_size).to(self.device)
        self.has_plain_head = self._probe()

    @property
    def vocab_size(self) -> int:
        """V of every target."""
        return self._vocab_size

    @property
    def pads_rows(self) -> bool:  # type: ignore[override]
        """True but for draws, which depend on the whole of a row's content."""
        return not self.kept.is_drawn

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, kept={self.kept}, tail={self.tail!r})"

    def identity(self) -> dict[str, Any]:
        """Which model with which weights and which tokenizer: what a cache of it belongs to."""
        return {
            "model": self.name,
            "model_fingerprint": model_fingerprint(self.model),
            "model_dtype": str(self.model.dtype).removeprefix("torch."),
            "vocab_size": self.vocab_size,
            "tokenizer": self.tokenizer.spec if self.tokenizer else None,
            "tokenizer_fingerprint": self.tokenizer.fingerprint if self.tokenizer else None,
        }

    def describe(self) -> dict[str, Any]:
        """The identity of the model and the settings, for reports and checkpoints."""
        return {**self.identity(), **self.kept.describe(), "tail": self.tail}

    def teach(self, input_ids: npt.ArrayLike | Tensor) -> AnyTargets:
        """The targets of rows of token ids, as a call gives them.

        Returns
        -------
        SoftTargets, or DenseTargets where `kept` is "all" or "hidden"
            Of Q = B · T positions, row by row, on the model's device.

        Raises
        ------
        InputError
            Another shape or type, or a token outside of the vocabulary.
        ConfigError
            Hidden states of a model whose logits aren't a linear function of them.
        """
        ids = token_rows(input_ids, self.vocab_size)
        if self.kept.is_whole:
            return DenseTargets(self.logits(ids) if self.kept.kind == "all" else self.stored_logits(ids))
        return soft_targets(kept_rows(self, ids, self.kept), self.base, tail=self.tail)

    def logit_chunks(self, input_ids: npt.ArrayLike | Tensor) -> Iterator[LogitChunk]:
        """The logits, a chunk of positions at a time.

        Parameters
        ----------
        input_ids : array_like or Tensor of shape (B, T) or (T,), integer

        Yields
        ------
        lo, hi : int
            The positions of the chunk among the B · T.
        logits : Tensor of shape (hi − lo, V)
            Of the model's type, without gradient; about `CHUNK_ELEMENTS` at once where the model is a body and a linear
            output embedding, else those of `rows` rows.
        """
        ids = torch.from_numpy(token_rows(input_ids, self.vocab_size))
        length = ids.shape[1]
        for first in range(0, ids.shape[0], self.rows):
            part = ids[first : first + self.rows].to(self.device)
            if self.has_plain_head:
                hidden = self._hidden(part).reshape(-1, self.hidden_size)
                yield from _shifted(self._head_chunks(hidden), first * length)
            else:
                with self.teaching():
                    logits = self.model(input_ids=part, use_cache=False).logits[..., : self.vocab_size]
                yield first * length, (first + part.shape[0]) * length, logits.reshape(-1, self.vocab_size)

    def logits(self, input_ids: npt.ArrayLike | Tensor) -> Tensor:
        """All that the model says, for losses that take a dense teacher.

        Returns
        -------
        Tensor of shape (B, T, V)
            Of the model's type and device, without gradient.

        Raises
        ------
        InputError
            As of a call.
        """
        ids = token_rows(input_ids, self.vocab_size)
        parts = [logits for *_, logits in self.logit_chunks(ids)]
        return torch.cat(parts).reshape(*ids.shape, self.vocab_size)

    def stored_logits(self, input_ids: npt.ArrayLike | Tensor) -> Tensor:
        """The logits that a cache of its hidden states, kept as `kept.precision`, would give back.

        Returns
        -------
        Tensor of shape (B, T, V)
            Of the model's type and device, without gradient.

        Raises
        ------
        ConfigError
            A model whose logits aren't a linear function of its hidden states.
        """
        ids = token_rows(input_ids, self.vocab_size)
        hidden = self.hidden_states(ids)
        codec = RecordCodec(self.kept, self.vocab_size, hidden.shape[0], self.hidden_size)
        stored = codec.decode_hidden(np.frombuffer(codec.encode_hidden(hidden), np.uint8)).to(hidden)
        parts = [logits for *_, logits in self._head_chunks(stored)]
        return torch.cat(parts).reshape(*ids.shape, self.vocab_size)

    def hidden_states(self, input_ids: npt.ArrayLike | Tensor) -> Tensor:
        """What the output embedding is applied to, the final norm included.

        Returns
        -------
        Tensor of shape (B · T, H)
            Of the model's type and device.

        Raises
        ------
        ConfigError
            A model whose logits aren't a linear function of them.
        """
        if not self.has_plain_head:
            raise ConfigError(
                f"the logits of {self.name!r} are not its output embedding applied to its last hidden states "
                "(a soft-cap or a scale, say): keep top-k, top-p or draws instead"
            )
        ids = torch.from_numpy(token_rows(input_ids, self.vocab_size))
        parts = [self._hidden(part.to(self.device)) for part in ids.split(self.rows)]
        return torch.cat(parts).reshape(-1, self.hidden_size)

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    def output_embedding(self) -> tuple[Tensor, Tensor | None]:
        """Weight (V, H) and bias (V,) or None, that turn hidden states into logits."""
        head = self.model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        size = self.vocab_size
        return head.weight.detach()[:size], None if bias is None else bias.detach()[:size]

    def _hidden(self, part: Tensor) -> Tensor:
        with self.teaching():
            return self.model.base_model(input_ids=part, use_cache=False).last_hidden_state

    def _head_chunks(self, hidden: Tensor) -> Iterator[LogitChunk]:
        weight, bias = self.output_embedding()
        return head_chunks(hidden, weight, bias)

    def _probe(self) -> bool:
        """Whether the logits are the output embedding of the body's last hidden states."""
        config = self.model.config
        if any(getattr(config, name, None) not in (None, 1, 1.0) for name in _LOGIT_CHANGES):
            return False
        if self.model.base_model is self.model:
            return False
        ids = torch.arange(min(_PROBE_TOKENS, self.vocab_size), device=self.device)[None]
        with self.teaching():
            expected = self.model(input_ids=ids, use_cache=False).logits[0, :, : self.vocab_size].float()
        hidden = self._hidden(ids)[0]
        if hidden.shape[-1] != self.hidden_size:
            return False
        actual = torch.cat([logits for *_, logits in self._head_chunks(hidden)]).float()
        tolerance = 1e-4 if self.model.dtype == torch.float32 else 2e-2
        return bool((actual - expected).abs().max() <= tolerance * expected.abs().max())

    @contextlib.contextmanager
    def teaching(self) -> Iterator[None]:
        """No gradient, no dropout, the model's own precision; a model in training goes on training afterwards."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            for module in training:
                module.training = True


def kept_rows(source: LogitSource, rows: npt.NDArray[Any], kept: TargetFormat) -> SparseRows:
    """What is kept of a source's distributions at every position of (B, T) rows."""
    length = rows.shape[1]
    numbers = None
    if kept.is_drawn:
        numbers = torch.cat([uniforms_of(key, length, kept) for key in window_keys(rows)])
    parts = []
    for lo, hi, logits in source.logit_chunks(rows):
        drawn = None if numbers is None else numbers[lo:hi].to(logits.device)
        parts.append(sparsify(logits, kept, drawn))
    return SparseRows.concatenate(parts)


def head_chunks(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[LogitChunk]:
    """Logits of (Q, H) hidden states, about `CHUNK_ELEMENTS` at once, without gradient."""
    step = max(1, CHUNK_ELEMENTS // weight.shape[0])
    for lo in range(0, hidden.shape[0], step):
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            logits = torch.nn.functional.linear(hidden[lo : lo + step], weight, bias)
        yield lo, lo + logits.shape[0], logits


def base_distribution(base: npt.ArrayLike | Tensor | None, vocab_size: int) -> Tensor:
    """A checked base of shape (V,), float32; uniform where none is given.

    Raises
    ------
    ConfigError
        Another shape, or no distribution.
    """
    if base is None:
        return torch.full((vocab_size,), 1 / vocab_size)
    given = torch.as_tensor(base, dtype=torch.float32)
    if given.shape != (vocab_size,) or bool((given < 0).any()) or abs(float(given.double().sum()) - 1) > 1e-4:
        raise ConfigError(
            f"base has shape {tuple(given.shape)} and sums to {float(given.double().sum()):.4f}: "
            f"give a distribution over the {vocab_size} tokens"
        )
    return given


def _shifted(chunks: Iterable[LogitChunk], by: int) -> Iterator[LogitChunk]:
    for lo, hi, logits in chunks:
        yield lo + by, hi + by, logits


def _loaded(tokenizer: Any) -> Any:
    return tokenizer if tokenizer is None or isinstance(tokenizer, Tokenizer) else load_tokenizer(tokenizer)
