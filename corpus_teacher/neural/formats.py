"""How much of a neural teacher's distribution is kept: its head, its nucleus, or random draws from it.

The naive target of a position is ``softmax(logits)``, V numbers. Kept are a few of its tokens, as a `SparseRows`:

| kind | kept tokens | unbiased | mass beyond them |
|---|---|---|---|
| "top-k" | the k most probable | no | goes to the base |
| "top-p" | the fewest most probable that hold mass p, at most k of them | no | goes to the base |
| "sample" | n independent draws with replacement, weight count / n (Anshumann et al. 2025) | yes | none |
| "systematic" | n evenly spaced draws with one random offset, weight count / n | yes | none |
| "hidden" | the last hidden states instead: all of the distribution | exact | none |
| "all" | the logits: of live teachers, never of a cache | exact | none |

Systematic draws (as in particle filters; Kitagawa 1996) take a token ⌊n·p⌋ or ⌈n·p⌉ times, so that a token's weight is
never off by more than 1 / n; each weight is still right on average. Draws depend on the content of the row and on
`seed` only: in whatever order and batch a row comes, and after whatever interruption, it is given the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import CACHE_KINDS, PRECISIONS
from corpus_teacher.targets.soft import SoftTargets

KINDS = (*CACHE_KINDS, "all")
"""What can be said of a distribution: what a cache can keep, or all of it."""

TAILS = ("base", "renormalize")
"""What becomes of the mass beyond the kept tokens."""

_FULL = 1 - 1e-7  # a base that gives the kept tokens so much has nothing left to spread a tail on


@dataclass(frozen=True)
class TargetFormat:
    """What is kept of each distribution.

    Parameters
    ----------
    kind : {"top-k", "top-p", "sample", "systematic", "hidden", "all"}
        See the module.
    k : int
        Tokens a position: of "top-k" exactly, of "top-p" at most.
    p : float
        Mass that "top-p" holds, unless k tokens hold less; above 0, at most 1.
    draws : int
        n of "sample" and "systematic".
    precision : {"fp32", "fp16", "bf16", "int8"}
        Of stored probabilities and hidden states; nothing to a live teacher. Counts of draws are whole numbers
        and are always exact.
    seed : int
        Of the draws.

    Raises
    ------
    ConfigError
        A setting out of range.
    """

    kind: str = "top-k"
    k: int = 64
    p: float = 0.95
    draws: int = 50
    precision: str = "fp16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, KINDS), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}: give one of {', '.join(known)}")
        if self.k < 1:
            raise ConfigError(f"k is {self.k}: keep at least 1 token a position")
        if not 0 < self.p <= 1:
            raise ConfigError(f"p is {self.p}: give a mass above 0, at most 1")
        if not 1 <= self.draws <= np.iinfo(np.uint16).max:
            raise ConfigError(f"draws is {self.draws}: give 1 to {np.iinfo(np.uint16).max}")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: give 0 or more")

    @property
    def is_whole(self) -> bool:
        """Whether all of a distribution is said, as `DenseTargets`: by logits, or by hidden states."""
        return self.kind in ("all", "hidden")

    @property
    def is_drawn(self) -> bool:
        """Whether tokens are drawn at random."""
        return self.kind in ("sample", "systematic")

    def check_vocabulary(self, vocab_size: int) -> None:
        """Refuse more tokens than there are.

        Raises
        ------
        ConfigError
        """
        if self.kind in ("top-k", "top-p") and self.k > vocab_size:
            raise ConfigError(f"k is {self.k} and the vocabulary has {vocab_size} tokens: keep at most all of them")

    def describe(self) -> dict[str, object]:
        """The settings that matter to this kind, for manifests and reports."""
        names = {"top-k": ("k",), "top-p": ("p", "k"), "hidden": (), "all": ()}.get(self.kind, ("draws", "seed"))
        precision = {} if self.is_drawn or self.kind == "all" else {"precision": self.precision}
        return {"kind": self.kind, **{name: getattr(self, name) for name in names}, **precision}


class SparseRows(NamedTuple):
    """What is kept at each of Q positions.

    Attributes
    ----------
    lengths : Tensor of shape (Q,), int64
        Kept tokens a position.
    token_ids : Tensor of shape (entries,), int64
        Position by position; the most probable first, or ascending where they are drawn.
    probs : Tensor of shape (entries,), float32
        Whole probabilities (drawn: weights). With `tail` they sum to 1 at each position.
    tail : Tensor of shape (Q,), float32
        The mass of all other tokens.
    """

    lengths: Tensor
    token_ids: Tensor
    probs: Tensor
    tail: Tensor

    @staticmethod
    def concatenate(parts: Sequence[SparseRows]) -> SparseRows:
        """Positions of several, one after the other; at least one."""
        return parts[0] if len(parts) == 1 else SparseRows(*(torch.cat(column) for column in zip(*parts, strict=True)))


def sparsify(logits: Tensor, kept: TargetFormat, uniforms: Tensor | None = None) -> SparseRows:
    """Keep a part of each distribution.

    Parameters
    ----------
    logits : Tensor of shape (Q, V)
        Any floating type; read as float32.
    kept : TargetFormat
        Neither "hidden" nor "all".
    uniforms : Tensor of shape (Q, n), float64
        Numbers from 0 to below 1 that the draws come from; "systematic" reads the first column. See
        `uniforms_of`.

    Returns
    -------
    SparseRows
        On the device of the logits.

    Raises
    ------
    ConfigError
        k above V; hidden states, which aren't sparse; draws without their random numbers.

    Notes
    -----
    O(Q · V): one softmax and one selection, or one cumulative sum in float64.
    """
    kept.check_vocabulary(logits.shape[-1])
    probs = logits.float().softmax(-1)
    if kept.kind == "top-k":
        return _head(probs, kept.k, None)
    if kept.kind == "top-p":
        return _head(probs, kept.k, kept.p)
    if not kept.is_drawn:
        what = "hidden states are" if kept.kind == "hidden" else "a whole distribution is"
        raise ConfigError(f"{what} not a sparse target: keep top-k, top-p, sample or systematic")
    if uniforms is None:
        raise ConfigError(f"{kept.kind!r} draws at random and has no random numbers: make them with uniforms_of")
    return _drawn(probs, kept, uniforms)


def _head(probs: Tensor, k: int, mass: float | None) -> SparseRows:
    """The k most probable tokens, or as many of them as reach a mass."""
    values, tokens = probs.topk(k, dim=-1)
    if mass is None:
        chosen = torch.ones_like(values, dtype=torch.bool)
    else:
        chosen = values.double().cumsum(-1) - values < mass  # what stands before a token doesn't reach it yet
        chosen[:, 0] = True
    # Summed up, since 1 − head loses a tail below 1e-7, and with it what makes a KL finite.
    tail = probs.scatter(-1, tokens, 0).sum(-1) + (values * ~chosen).sum(-1)
    return SparseRows(chosen.sum(-1), tokens[chosen], values[chosen], tail)


def _drawn(probs: Tensor, kept: TargetFormat, uniforms: Tensor) -> SparseRows:
    """Counts of n draws by the inverse of the cumulative distribution."""
    steps = torch.arange(kept.draws, dtype=torch.float64, device=probs.device)
    places = uniforms if kept.kind == "sample" else (steps + uniforms[:, :1]) / kept.draws
    cumulative = probs.double().cumsum(-1)
    places = places.sort(-1).values * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, places, right=True).clamp_max(probs.shape[-1] - 1)
    rows = torch.arange(probs.shape[0], device=probs.device)[:, None]
    keys, counts = (rows * probs.shape[-1] + tokens).reshape(-1).unique_consecutive(return_counts=True)
    lengths = torch.bincount(keys // probs.shape[-1], minlength=probs.shape[0])
    return SparseRows(lengths, keys % probs.shape[-1], counts.float() / kept.draws, torch.zeros_like(probs[:, 0]))


def uniforms_of(key: bytes, num_positions: int, kept: TargetFormat) -> Tensor:
    """The random numbers of a row, from its content and the seed alone.

    Parameters
    ----------
    key : bytes
        16, of the row (`corpus_teacher.neural.identity.window_keys`).
    num_positions : int
        T.
    kept : TargetFormat

    Returns
    -------
    Tensor of shape (T, n), float64
        (T, 1) for "systematic". On the CPU.
    """
    width = kept.draws if kept.kind == "sample" else 1
    if kept.seed:  # into the key, not the counter: the stream that begins n numbers later is the same stream
        key = hashlib.blake2b(key + str(kept.seed).encode(), digest_size=len(key)).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return torch.from_numpy(generator.random((num_positions, width)))


def soft_targets(rows: SparseRows, base: Tensor, *, tail: str = "base") -> SoftTargets:
    """Kept tokens as targets, with the mass beyond them where it is wanted.

    Parameters
    ----------
    rows : SparseRows
        Of Q positions.
    base : Tensor of shape (V,), float32
        Sums to 1; on the device of the rows.
    tail : {"base", "renormalize"}
        "base": the other tokens share the tail in proportion to the base, and the kept ones have exactly their own
        probability. "renormalize": the kept ones take it, and all others have probability 0.

    Returns
    -------
    SoftTargets
        Sum to 1; `cut_mass` is the tail either way, match_len and context_count are 0.

    Raises
    ------
    ConfigError
        Another tail.

    Notes
    -----
    With r = tail / (1 − base(kept)), a kept token's explicit mass is p − r · base(token), which may be a little below 0
    where a base is far from the teacher; its whole probability is p.

    Examples
    --------
    >>> rows = sparsify(torch.tensor([[2.0, 1.0, 0.0, 0.0]]), TargetFormat("top-k", k=2))
    >>> targets = soft_targets(rows, torch.full((4,), 0.25))
    >>> [round(p, 2) for p in targets.dense()[0].tolist()]
    [0.61, 0.22, 0.08, 0.08]
    """
    if tail not in TAILS:
        raise ConfigError(f"tail is {tail!r}: give one of {', '.join(TAILS)}")
    num_positions, device = rows.lengths.shape[0], rows.tail.device
    position = torch.arange(num_positions, device=device).repeat_interleave(
        rows.lengths, output_size=rows.token_ids.shape[0]
    )
    kept = torch.zeros(num_positions, dtype=torch.float64, device=device)
    if tail == "base":
        covered = kept.index_add(0, position, base.double()[rows.token_ids])
        spread = rows.tail.double() > 0
        rest = torch.where(spread & (covered < _FULL), rows.tail.double() / (1 - covered).clamp_min(1 - _FULL), 0.0)
        probs = rows.probs.double() - rest[position] * base.double()[rows.token_ids]
    else:
        rest, probs = kept.clone(), rows.probs.double()
    mass = kept.index_add(0, position, probs)
    probs = probs * ((1 - rest) / mass.clamp_min(torch.finfo(torch.float64).tiny))[position]
    zeros = torch.zeros(num_positions, dtype=torch.int64, device=device)
    return SoftTargets(
        offsets=torch.cat([zeros[:1], rows.lengths.cumsum(0)]),
        token_ids=rows.token_ids,
        probs=probs.float(),
        rest=rest.float(),
        base=base,
        match_len=zeros.int(),
        context_count=zeros,
        cut_mass=rows.tail,
        valid=torch.ones(num_positions, dtype=torch.bool, device=device),
    )
