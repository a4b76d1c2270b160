"""On-policy distillation: the student writes on, and its teachers say what they think of what it wrote.

A student that only ever reads other people's text is never taught where its own text leads it (exposure bias). Agarwal
et al. 2023 (arXiv:2306.13649, algorithm 1, "GKD") therefore take a share of the batches from the student: its rows are
cut after a prompt, continued by the student, and the teacher's distributions at the new positions are the targets.
No gradient flows through the drawing. A cache of logits can't teach such text, which nobody has seen before; an index
of the corpus can: ``CorpusTeacher(index, leave_out=None)(rows)``, and so can a live model.

Where this departs from the paper: the choice of batches is a function of seed and step, and so are the draws. A run
that is resumed at a step sees the same text as one that never stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corpus_teacher.errors import ConfigError, InputError

_SEED_BITS = 63
_UNIT_BITS = 53  # what a float64 between 0 and 1 holds


@dataclass(frozen=True)
class OnPolicy:
    """How often the student writes, and how.

    Parameters
    ----------
    share : float
        Share of the steps whose batches the student continues, 0 to 1: lambda of the paper.
    prompt_len : int
        Tokens of each row that stay.
    temperature : float
        Of the student's distribution; the paper draws at 1.
    top_k : int, optional
        Draw of the likeliest so many tokens only.
    top_p : float
        Below 1: of the likeliest only that hold this much mass together.
    seed : int
        Of the choice of steps and of all draws.

    Raises
    ------
    ConfigError
        A setting out of range.

    Examples
    --------
    >>> settings = OnPolicy(share=0.25, prompt_len=8)
    >>> [step for step in range(16) if settings.is_on_policy(step)]
    [2, 6, 7]
    """

    share: float = 0.5
    prompt_len: int = 32
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share!r}: give a number from 0, never on-policy, to 1, always")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"seed is {self.seed!r}: give a whole number")
        _check_prompt(self.prompt_len)
        check_drawing(self.temperature, self.top_k, self.top_p)

    def is_on_policy(self, step: int) -> bool:
        """Whether the student writes the batches of an optimizer step."""
        return (_number(self.seed, "share", step) >> (_SEED_BITS - _UNIT_BITS)) < self.share * 2**_UNIT_BITS

    def generator(self, *numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator that the seed and these numbers alone decide: step, batch of the step, process, say."""
        return torch.Generator(device).manual_seed(_number(self.seed, "draws", *numbers))

    def sampled_mask(self, input_ids: Tensor) -> Tensor:
        """Where a loss on the student's own text counts.

        Parameters
        ----------
        input_ids : Tensor of shape (B, T)

        Returns
        -------
        Tensor of shape (B, T), bool
            True at the positions whose next token the student drew: from the last of the prompt to the last but one.
        """
        mask = torch.zeros(input_ids.shape, dtype=torch.bool, device=input_ids.device)
        mask[:, self.prompt_len - 1 : -1] = True
        return mask


def continue_rows(
    model: Any,
    input_ids: Tensor,
    *,
    prompt_len: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator,
    vocab_size: int | None = None,
) -> Tensor:
    """Rows of the same length whose first tokens are those given, and whose others the student draws.

    Parameters
    ----------
    model : PreTrainedModel
        The student. It is asked in evaluation mode and without gradient, and gets back the mode of each of its modules.
    input_ids : Tensor of shape (B, T), int64
        On the model's device.
    prompt_len : int
        From 1 to T. Documents may end and begin among the rest, as they do in packed rows: nothing stops a row.
    temperature, top_k, top_p
        As in `OnPolicy`.
    generator : torch.Generator
        Gives B · (T − prompt_len) numbers at once, so that the same state gives the same rows.
    vocab_size : int, optional
        Of the teachers: only tokens below it are drawn, where the student has more (padded embeddings).

    Returns
    -------
    Tensor of shape (B, T), int64

    Raises
    ------
    ConfigError
        A setting out of range.
    InputError
        Rows of another shape, or shorter than the prompt.

    Notes
    -----
    One pass over the prompts, then T − prompt_len passes over one token a row each (a key-value cache; a model without
    one reads the row again every time). O(B · V) beside a pass; V log V where something is cut.
    """
    _check_prompt(prompt_len)
    if input_ids.ndim != 2 or input_ids.shape[1] < prompt_len:
        raise InputError(
            f"input_ids has shape {tuple(input_ids.shape)}: "
            f"give rows (B, T) of at least prompt_len, {prompt_len}, tokens"
        )
    drawn = draw_continuations(
        model,
        input_ids[:, :prompt_len],
        input_ids.shape[1] - prompt_len,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
        vocab_size=vocab_size,
    )
    return torch.cat([input_ids[:, :prompt_len], drawn], 1)


def draw_continuations(
    model: Any,
    prompts: Tensor,
    num_tokens: int,
    *,
    prompt_mask: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator,
    vocab_size: int | None = None,
    end_token: int | None = None,
) -> Tensor:
    """What a model writes after prompts.

    Parameters
    ----------
    model, temperature, top_k, top_p, generator, vocab_size
        As in `continue_rows`.
    prompts : Tensor of shape (B, P), int64
    num_tokens : int
        L.
    prompt_mask : Tensor of shape (B, P), bool, optional
        False at padding, which has to stand on the left.
    end_token : int, optional
        After it a row holds only this token; all stop early when every row has drawn it.

    Returns
    -------
    Tensor of shape (B, L), int64

    Raises
    ------
    ConfigError
        A setting out of range.
    """
    check_drawing(temperature, top_k, top_p)
    chances = torch.rand(
        (prompts.shape[0], num_tokens), generator=generator, device=generator.device, dtype=torch.float64
    ).to(prompts.device)
    drawn = prompts.new_full((prompts.shape[0], num_tokens), 0 if end_token is None else end_token)
    running = torch.ones(prompts.shape[0], dtype=torch.bool, device=prompts.device)
    with evaluating(model):
        reader = _Reader(model, prompts, prompt_mask)
        for place in range(num_tokens):
            logits = reader.logits()
            tokens = draw_tokens(
                logits if vocab_size is None else logits[:, :vocab_size], chances[:, place], temperature, top_k, top_p
            )
            if end_token is not None:
                tokens = torch.where(running, tokens, end_token)
                running &= tokens != end_token
            drawn[:, place] = tokens
            if end_token is not None and not bool(running.any()):
                break
            reader.append(tokens)
    return drawn


def draw_tokens(
    logits: Tensor, chances: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """One token a row, by the inverse of the cumulative distribution.

    Parameters
    ----------
    logits : Tensor of shape (B, V)
    chances : Tensor of shape (B,), float64
        Uniform in [0, 1).
    temperature, top_k, top_p
        As in `OnPolicy`.

    Returns
    -------
    Tensor of shape (B,), int64

    Examples
    --------
    >>> logits = torch.tensor([[0.1, 0.2, 0.7]]).log().expand(3, 3)
    >>> draw_tokens(logits, torch.tensor([0.05, 0.25, 0.35]).double()).tolist()
    [0, 1, 2]
    >>> draw_tokens(logits, torch.tensor([0.05, 0.25, 0.99]).double(), top_k=1).tolist()
    [2, 2, 2]
    """
    probs = torch.softmax(logits.double() / temperature, -1)
    order = None
    if top_k is not None or top_p < 1:
        probs, order = torch.sort(probs, dim=-1, descending=True, stable=True)
        if top_k is not None:
            probs, order = probs[:, :top_k], order[:, :top_k]
            probs = probs / probs.sum(-1, keepdim=True)
        before = probs.cumsum(-1) - probs
        probs = torch.where(before < top_p, probs, 0.0)  # the likeliest has nothing before it, and stays
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1:]
    places = torch.minimum(chances[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, places, right=True)
    return (tokens if order is None else order.gather(1, tokens))[:, 0]


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without gradient or dropout; each module that was in training is so again afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def positions_of(mask: Tensor) -> Tensor:
    """Position ids of rows that are padded on the left, (B, T) int64: 0 at the first token that counts."""
    return (mask.long().cumsum(-1) - 1).clamp_min(0)


def check_drawing(temperature: float, top_k: int | None, top_p: float) -> None:
    """Refuse settings of drawing that are out of range."""
    if not 0 < temperature < float("inf"):
        raise ConfigError(
            f"temperature is {temperature!r}: give a positive number, 1 for the student's own distribution"
        )
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise ConfigError(f"top_k is {top_k!r}: give at least 1, or None for all tokens")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is {top_p!r}: give a share above 0 and at most 1")


class _Reader:
    """A model that reads rows as they grow, and tells the logits of what comes next."""

    def __init__(self, model: Any, prompts: Tensor, mask: Tensor | None) -> None:
        self.model = model
        self.rows = self.unread = prompts
        self.mask = mask
        self.cache: Any = None
        # transformers 5.2x renamed it, of the argument and of the output
        accepted = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in accepted else "past_key_values"
        self.options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.reads_context = "context_ids" in accepted

    def logits(self) -> Tensor:
        """(B, V), of the token after the rows."""
        options: dict[str, Any] = (
            dict(self.options) if self.cache is None else {**self.options, self.cache_name: self.cache}
        )
        if self.mask is not None:
            positions = positions_of(self.mask)[:, -self.unread.shape[1] :]
            options |= {"attention_mask": self.mask.long(), "position_ids": positions}
        if self.reads_context:  # a student of ours, which looks at tokens before those that it reads
            options["context_ids"] = self.rows if self.mask is None else torch.where(self.mask > 0, self.rows, -1)
        outputs = self.model(input_ids=self.unread, use_cache=True, **options)
        self.cache = getattr(outputs, self.cache_name, None)
        return outputs.logits[:, -1]

    def append(self, tokens: Tensor) -> None:
        self.rows = torch.cat([self.rows, tokens[:, None]], 1)
        self.unread = self.rows if self.cache is None else tokens[:, None]
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)


def _check_prompt(prompt_len: int) -> None:
    if isinstance(prompt_len, bool) or not isinstance(prompt_len, int) or prompt_len < 1:
        raise ConfigError(f"prompt_len is {prompt_len!r}: give the student at least 1 token to go on from")


def _number(seed: int, purpose: str, *numbers: int) -> int:
    """A whole number below 2**63 that only the arguments decide."""
    text = "/".join([str(seed), purpose, *(str(int(number)) for number in numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> (64 - _SEED_BITS)
