"""Targets made from targets: another temperature, and the control that gives each position another's target.

Both keep the form sparse + rest · base, and cost O(pairs + V).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from corpus_teacher.errors import TargetError
from corpus_teacher.settings import is_number
from corpus_teacher.targets.dense import DenseTargets
from corpus_teacher.targets.mixed import AnyTargets, MixedTargets
from corpus_teacher.targets.soft import SoftTargets


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive, or so high that nothing is left of the logits."""
    if not is_number(temperature) or not 0 < temperature <= 1e6:
        raise TargetError(f"temperature is {temperature!r}: give a positive number up to a million, 1 for none")


def temper_targets(targets: AnyTargets, temperature: float) -> SoftTargets | DenseTargets:
    """Targets at a temperature: ``p^(1 / T)``, normalised over the whole vocabulary.

    Parameters
    ----------
    targets : SoftTargets or DenseTargets
        Counts have no logits, but log p is as good: softmax(log p / T) is what this gives.
    temperature : float
        T; above 1 flatter, below 1 sharper.

    Returns
    -------
    SoftTargets or DenseTargets
        As the input. Exact: a token without a pair has p = rest · base, so p^(1 / T) is a multiple of base^(1 / T), the
        base of the result, and all else is pairs. The evidence is that of the input.

    Raises
    ------
    TargetError
        A temperature that is not positive, or targets in mixed form.

    Notes
    -----
    O(pairs + V). A probability of 0 stays 0. Do it once, before the loop, or in the loader's workers.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> [round(p, 3) for p in temper_targets(targets, 2.0).dense()[0].tolist()]
    [0.177, 0.177, 0.469, 0.177]
    """
    check_temperature(temperature)
    if isinstance(targets, MixedTargets):
        raise TargetError("targets in mixed form have no other temperature: make them flat, or leave it at 1")
    if isinstance(targets, DenseTargets):
        return DenseTargets(targets.logits / temperature, targets.valid)
    power, rows, tokens = 1 / temperature, targets.rows(), targets.token_ids.long()
    base, rest = targets.base.double(), targets.rest.double().clamp_min(0)
    hidden = base.pow(power)
    whole = (targets.probs.double() + rest[rows] * base[tokens]).clamp_min(0).pow(power)
    new_rest = rest.pow(power)
    pairs = whole - new_rest[rows] * hidden[tokens]
    base_mass = hidden.sum()
    total = (new_rest * base_mass).index_add(0, rows, pairs)
    total = torch.where(total > 0, total, 1)  # of a position that isn't valid and has no mass
    return replace(
        targets,
        probs=(pairs / total[rows]).to(targets.probs.dtype),
        rest=(new_rest * base_mass / total).to(targets.rest.dtype),
        base=(hidden / base_mass).to(targets.base.dtype),
    )


def permute_targets(targets: SoftTargets, seed: int) -> SoftTargets:
    """Give every position the target of another one: the same entropies, the wrong content.

    A control: what a student still gains from such targets is due to their softness, not to what they say.

    Parameters
    ----------
    targets : SoftTargets
        Of one batch.
    seed : int
        The same permutation for the same seed and the same valid positions.

    Returns
    -------
    SoftTargets
        A random cycle through the valid positions, so that none keeps its own (unless it is the only one);
        each target comes with its evidence. Positions that aren't valid stay as they are.

    Notes
    -----
    O(pairs). The control mixes positions of one batch only: permute the largest batch at hand.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1, 2], [2, 0], [0.6, 1.0], [0.4, 0.0], [0.25] * 4)
    >>> permute_targets(targets, seed=0).dense().tolist() == targets.dense().flip(0).tolist()
    True
    """
    valid = targets.valid.nonzero()[:, 0]
    cycle = valid[torch.randperm(valid.shape[0], generator=torch.Generator().manual_seed(seed)).to(valid.device)]
    source = torch.arange(targets.num_positions, device=valid.device)
    source[cycle] = cycle.roll(1)
    lengths = targets.offsets.diff()[source]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    entries = targets.token_ids.shape[0]
    shift = (targets.offsets[:-1][source] - offsets[:-1]).repeat_interleave(lengths, output_size=entries)
    pairs = torch.arange(entries, device=valid.device) + shift
    return replace(
        targets,
        offsets=offsets,
        token_ids=targets.token_ids[pairs],
        probs=targets.probs[pairs],
        rest=targets.rest[source],
        match_len=targets.match_len[source],
        context_count=targets.context_count[source],
        cut_mass=targets.cut_mass[source],
    )
