"""Demonstration-conditioned self-distillation: a model that has read a demonstration teaches itself without it.

The student answers a prompt. The teacher, the same model (its live weights, a moving average, or the frozen start),
reads demonstration + prompt + that answer, and its distributions at the answer's positions teach the student, which
reads prompt + answer only. So a model is tuned on demonstrations without leaving its own text: Shenfeld et al. 2026
(arXiv:2601.19897, "SDFT"), with the reverse KL(student ‖ teacher) of their objective by default. (Some take the forward
KL, beta 0.) Where this departs from it: the KL is exact over the vocabulary, and with an empty demonstration and the
plain template the teacher is the student, so that the loss is 0.

Shape letters: B rows, P tokens of the prompts, C of the teacher's contexts, L of the answers, V vocabulary. Prompts and
contexts are padded on the left, so that answers begin at one place.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.data import Tokenizer
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import parse_json
from corpus_teacher.losses import generalized_jsd, temper_targets
from corpus_teacher.neural import NeuralTeacher
from corpus_teacher.on_policy import check_drawing, draw_continuations, evaluating, positions_of
from corpus_teacher.targets.dense import DenseTargets

PLAIN_TEMPLATE = "{demonstration}{prompt}"
"""What the teacher reads before the answer; the only template that needs no tokenizer."""

Text = str | Sequence[int] | npt.NDArray[np.integer[Any]]
_FIELDS = ("prompt", "demonstration")


class DemonstrationDataset:
    """Pairs of a prompt and a demonstration of how it is answered, as a map-style dataset.

    Parameters
    ----------
    pairs : iterable of (prompt, demonstration)
        Each a text, or token ids. A demonstration may be empty, a prompt not.
    tokenizer : Tokenizer, optional
        The student's; needed for texts, and for a template with words of its own.
    template : str
        The teacher's context, with {demonstration} and {prompt} once each. Words, demonstration and prompt are
        tokenised apart, so that the prompt has the tokens that the student reads.

    Raises
    ------
    ConfigError
        A template without its places, or words and no tokenizer.
    InputError
        An empty prompt, or what is neither text nor token ids.

    Examples
    --------
    >>> pairs = DemonstrationDataset([([1, 2], [7, 8, 9])])
    >>> pairs[0]["prompt_ids"].tolist(), pairs[0]["context_ids"].tolist()
    ([1, 2], [7, 8, 9, 1, 2])
    """

    def __init__(
        self, pairs: Iterable[tuple[Text, Text]], tokenizer: Tokenizer | None = None, *, template: str = PLAIN_TEMPLATE
    ) -> None:
        pieces = re.split(r"\{(prompt|demonstration)\}", template)  # words at even places
        if sorted(pieces[1::2]) != sorted(_FIELDS):
            raise ConfigError(f"the template {template!r} needs {{demonstration}} and {{prompt}}, once each: give both")
        if tokenizer is None and any(pieces[::2]):
            raise ConfigError(f"the template {template!r} has words of its own: give the student's tokenizer")
        words = [_tokens(piece, tokenizer, "the template") for piece in pieces[::2]]
        self._rows = []
        for number, (prompt, demonstration) in enumerate(pairs):
            where = f"pair {number}"
            ids = {
                "prompt": _tokens(prompt, tokenizer, where),
                "demonstration": _tokens(demonstration, tokenizer, where),
            }
            if not len(ids["prompt"]):
                raise InputError(f"{where} has an empty prompt: give at least one token to answer")
            parts = [part for word, name in zip(words, pieces[1::2], strict=False) for part in (word, ids[name])]
            self._rows.append({"prompt_ids": ids["prompt"], "context_ids": np.concatenate([*parts, words[-1]])})

    @classmethod
    def from_jsonl(
        cls, path: str | Path, tokenizer: Tokenizer | None = None, *, template: str = PLAIN_TEMPLATE
    ) -> DemonstrationDataset:
        """Read a file of one JSON object a line, with "prompt" and "demonstration": texts, or lists of token ids.

        Raises
        ------
        InputError
            No such file, a line that is no such object, and what the class refuses.
        ConfigError
            As the class.
        """
        pairs = []
        try:
            with Path(path).open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        pairs.append(_pair_of(line, f"{path}, line {number}"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the demonstrations {path} can't be read: {error}") from error
        return cls(pairs, tokenizer, template=template)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, npt.NDArray[np.int64]]:
        """`prompt_ids` (P,) and `context_ids` (C,) of a pair, int64."""
        return self._rows[number]


class DemonstrationCollator:
    """Pairs → a batch, padded on the left.

    Parameters
    ----------
    pad_token : int
        Any token: padding is masked.
    """

    def __init__(self, pad_token: int = 0) -> None:
        self.pad_token = pad_token

    def __call__(self, rows: Sequence[Mapping[str, npt.NDArray[np.int64]]]) -> dict[str, Tensor]:
        """Collate.

        Returns
        -------
        dict
            prompt_ids (B, P) and context_ids (B, C), int64; prompt_mask and context_mask, bool, False at padding.

        Raises
        ------
        InputError
            No rows.
        """
        if not rows:
            raise InputError("no pairs make no batch: give at least one")
        batch: dict[str, Tensor] = {}
        for name in ("prompt", "context"):
            ids, mask = _left_padded([np.asarray(row[f"{name}_ids"]) for row in rows], self.pad_token)
            batch |= {f"{name}_ids": ids, f"{name}_mask": mask}
        return batch


@dataclass(frozen=True)
class DemonstrationSettings:
    """How the student answers and is taught.

    Parameters
    ----------
    max_tokens : int
        L, of an answer.
    beta : float
        1: reverse KL(student ‖ teacher), 0: forward KL(teacher ‖ student), between: generalised JSD, as in
        `corpus_teacher.losses.generalized_jsd`.
    loss_temperature : float
        Of both in the loss, with the factor T².
    temperature, top_k, top_p
        Of the drawing, as in `corpus_teacher.on_policy.OnPolicy`.
    end_token : int, optional
        Ends an answer, and is its last token that counts.
    skip_tokens : int
        First tokens of an answer that don't count: there a teacher likes to speak of its demonstration.
    rows : int
        Rows that the teacher reads at once.

    Raises
    ------
    ConfigError
        A setting out of range.
    """

    max_tokens: int = 64
    beta: float = 1.0
    loss_temperature: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    end_token: int | None = None
    skip_tokens: int = 0
    rows: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ConfigError(f"beta is {self.beta!r}: give a number from 0 (forward KL) to 1 (reverse KL)")
        if not 0 < self.loss_temperature < float("inf"):
            raise ConfigError(f"loss_temperature is {self.loss_temperature!r}: give a positive number, 1 for none")
        if not 0 <= self.skip_tokens < self.max_tokens:
            raise ConfigError(
                f"skip_tokens is {self.skip_tokens!r} of max_tokens, {self.max_tokens!r}: leave at least 1 that counts"
            )
        if self.rows < 1:
            raise ConfigError(f"rows is {self.rows!r}: give the teacher at least 1 row at once")
        check_drawing(self.temperature, self.top_k, self.top_p)


class DemonstrationLoss(NamedTuple):
    """The loss of a batch, and the answers that it is of.

    Attributes
    ----------
    loss : Tensor
        Mean over the counted positions, nats.
    completions : Tensor of shape (B, L), int64
    counted : Tensor of shape (B, L), bool
        False after the end of an answer, and at `skip_tokens`.
    """

    loss: Tensor
    completions: Tensor
    counted: Tensor


def demonstration_loss(
    student: Any,
    teacher: Any,
    batch: Mapping[str, Tensor],
    settings: DemonstrationSettings,
    generator: torch.Generator,
) -> DemonstrationLoss:
    """One pass of a training loop: let the student answer, and compare it with the teacher that knows how it is done.

    Parameters
    ----------
    student : PreTrainedModel
    teacher : PreTrainedModel, NeuralTeacher or None
        None: the student's live weights. An `EmaTeacher` is a NeuralTeacher; a deep copy is the frozen start.
    batch : mapping
        Of `DemonstrationCollator`, on the device of both.
    settings : DemonstrationSettings
    generator : torch.Generator
        Of the answers; a state that a step decides (`OnPolicy.generator`) makes a run that resumes exactly.

    Returns
    -------
    DemonstrationLoss
        With a gradient in the student's weights only.

    Raises
    ------
    TargetError
        A teacher with another vocabulary.

    Notes
    -----
    Beside the drawing one pass of each model, the teacher's a few rows at a time and without gradient; its logits at
    the answers, (B, L, V), are kept.
    """
    completions = draw_continuations(
        student,
        batch["prompt_ids"],
        settings.max_tokens,
        prompt_mask=batch["prompt_mask"],
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        generator=generator,
        end_token=settings.end_token,
    )
    counted = counted_mask(completions, settings.end_token, settings.skip_tokens)
    targets = demonstration_targets(student if teacher is None else teacher, batch, completions, counted, settings.rows)
    logits = completion_logits(student, batch["prompt_ids"], batch["prompt_mask"], completions)
    if settings.loss_temperature != 1:
        targets = temper_targets(targets, settings.loss_temperature)  # type: ignore[assignment]
    loss = generalized_jsd(logits, targets, beta=settings.beta, temperature=settings.loss_temperature)
    return DemonstrationLoss(loss, completions, counted)


def demonstration_targets(
    teacher_model: Any,
    batch: Mapping[str, Tensor],
    completions: Tensor,
    counted: Tensor | None = None,
    rows: int = 8,
) -> DenseTargets:
    """What the teacher, who has read the demonstrations, says at every token of the answers.

    Parameters
    ----------
    teacher_model : PreTrainedModel or NeuralTeacher
    batch : mapping
        With context_ids and context_mask.
    completions : Tensor of shape (B, L), int64
    counted : Tensor of shape (B, L), bool, optional
        Becomes `valid`; all by default.
    rows : int
        Read at once.

    Returns
    -------
    DenseTargets
        Of B · L positions, aligned with `completion_logits`: position j of a row predicts its token j.
    """
    model = teacher_model.model if isinstance(teacher_model, NeuralTeacher) else teacher_model
    parts = zip(
        batch["context_ids"].split(rows), batch["context_mask"].split(rows), completions.split(rows), strict=True
    )
    with evaluating(model):
        logits = torch.cat([completion_logits(model, *part) for part in parts])
    return DenseTargets(logits, counted)


def completion_logits(model: Any, context_ids: Tensor, context_mask: Tensor, completions: Tensor) -> Tensor:
    """The logits that predict each token of completions that stand behind left-padded contexts.

    Parameters
    ----------
    model : PreTrainedModel
    context_ids : Tensor of shape (B, C), int64
    context_mask : Tensor of shape (B, C), bool
    completions : Tensor of shape (B, L), int64

    Returns
    -------
    Tensor of shape (B, L, V)
    """
    length = completions.shape[1]
    ids = torch.cat([context_ids, completions[:, :-1]], 1)  # the last token predicts nothing that is there
    mask = torch.cat([context_mask, context_mask.new_ones(len(completions), length - 1)], 1)
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    options = {"logits_to_keep": length} if keeps else {}  # else those of the contexts are made as well
    outputs = model(
        input_ids=ids, attention_mask=mask.long(), position_ids=positions_of(mask), use_cache=False, **options
    )
    return outputs.logits[:, -length:]


def counted_mask(completions: Tensor, end_token: int | None = None, skip_tokens: int = 0) -> Tensor:
    """Tokens of completions that count, (B, L) bool: up to the first end token, but the first few.

    Examples
    --------
    >>> counted_mask(torch.tensor([[5, 0, 0, 0], [5, 6, 7, 8]]), end_token=0, skip_tokens=1).tolist()
    [[False, True, False, False], [False, True, True, True]]
    """
    counted = torch.ones_like(completions, dtype=torch.bool)
    if end_token is not None:
        ended = (completions == end_token).long()
        counted = ended.cumsum(1) - ended == 0
    counted[:, :skip_tokens] = False
    return counted


def _left_padded(rows: list[npt.NDArray[np.int64]], pad_token: int) -> tuple[Tensor, Tensor]:
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
    ids = np.full(mask.shape, pad_token, np.int64)
    ids[mask] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _tokens(text: Text, tokenizer: Tokenizer | None, where: str) -> npt.NDArray[np.int64]:
    if isinstance(text, str):
        if not text:
            return np.zeros(0, np.int64)
        if tokenizer is None:
            raise InputError(f"{where} is text: give the student's tokenizer, or token ids")
        return tokenizer.encode(text).astype(np.int64)
    try:
        ids = np.asarray(text)
    except (ValueError, OverflowError):  # lists of different lengths
        ids = np.zeros((0, 0))
    if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0)):
        raise InputError(f"{where} holds {str(text)[:60]}: give a text or a list of token ids")
    return ids.astype(np.int64)


def _pair_of(line: str, where: str) -> tuple[Text, Text]:
    try:
        fields = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}") from error
    if not isinstance(fields, dict) or not all(isinstance(fields.get(name), (str, list)) for name in _FIELDS):
        raise InputError(f"{where} has no {' and '.join(_FIELDS)}: give both, as texts or lists of token ids")
    return fields["prompt"], fields["demonstration"]
