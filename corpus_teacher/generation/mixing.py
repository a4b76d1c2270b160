"""A model's next-token distribution mixed with the corpus's, by what is known of the context.

``p(w) = λ · model(w) + (1 − λ) · corpus(w)``, λ by bucket of evidence (`corpus_teacher.blend.MixtureWeights`): how long
the matched context is, how unsure the corpus, how often the context occurs. Everywhere logits are taken and given: the
mixture's are log p, whose softmax is p. Shape letters: B rows, T positions, V' outputs of the model, V of the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from corpus_teacher.blend import MixtureWeights
from corpus_teacher.errors import ConfigError
from corpus_teacher.students.inside import context_tokens, corpus_targets, mix_in
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher

Ints = npt.NDArray[np.int64]


class CorpusMixer:
    """The corpus's side of a mixture.

    Parameters
    ----------
    index : CorpusIndex or path
        Its tokens are the model's.
    weights : MixtureWeights or float
        λ, the model's share: by evidence, or the same everywhere.
    estimator : str, path, mapping or Estimator
        How counts become probabilities.
    max_order : int, optional
        The longest context in tokens.
    top_k : int
        Explicit tokens of the corpus's distributions; what is cut goes to their base.

    Raises
    ------
    ConfigError, QueryError, IndexFormatError
    """

    def __init__(
        self,
        index: Any,
        weights: MixtureWeights | float = 0.5,
        *,
        estimator: Any = "witten-bell",
        max_order: int | None = 5,
        top_k: int = 64,
    ) -> None:
        if not isinstance(weights, MixtureWeights):
            if not 0 <= weights <= 1:
                raise ConfigError(f"weights is {weights}: give the model's share, 0 to 1, or fitted weights")
            weights = MixtureWeights.constant(weights)
        self.teacher = CorpusTeacher(
            index if not isinstance(index, str) else Path(index),
            estimator=estimator,
            max_order=max_order,
            leave_out=None,
            top_k=top_k,
        )
        self.weights = weights

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.teacher.vocab_size

    @property
    def context_tokens(self) -> int:
        """Tokens of a context that count."""
        return context_tokens(self.teacher)

    def targets(self, rows: Ints, *, only_last: bool = False) -> SoftTargets:
        """What the corpus says after every token of some rows, or after each row's last one.

        Parameters
        ----------
        rows : ndarray of shape (B, T), int64
            Token ids. After one that is none of the index's, contexts begin anew.

        Returns
        -------
        SoftTargets
            Of B · T positions, or of B. That a token follows isn't looked at.
        """
        return corpus_targets(self.teacher, rows, only_last=only_last)

    def model_share(self, targets: SoftTargets) -> Tensor:
        """λ of every position, (Q,) float32."""
        return torch.from_numpy(self.weights(evidence_of(targets))).float()

    def mix(self, logits: Tensor, targets: SoftTargets) -> Tensor:
        """The mixture's log-probabilities.

        Parameters
        ----------
        logits : Tensor of shape (Q, V')
            Of the model, on any device; V' at least V. Outputs beyond V are the model's alone.
        targets : SoftTargets of Q positions

        Returns
        -------
        Tensor of shape (Q, V'), float32
            On the logits' device. Where a position isn't valid (no context is known) the model's own.
        """
        if self.vocab_size > logits.shape[-1]:
            raise ConfigError(
                f"the model has {logits.shape[-1]:,} outputs and the index {self.vocab_size:,} tokens: "
                "index the corpus with the model's tokenizer"
            )
        return mix_in(logits, targets, self.model_share(targets))


def evidence_of(targets: SoftTargets) -> dict[str, npt.NDArray[Any]]:
    """What weights may ask of positions: match_len, entropy in nats, count."""
    return {
        "match_len": targets.match_len.numpy(),
        "entropy": targets.entropy().numpy(),
        "count": targets.context_count.numpy(),
    }


class CorpusLogitsProcessor(transformers.LogitsProcessor):
    """Mixes the corpus into a model's logits while it generates; for `generate(logits_processor=[…])`.

    Parameters
    ----------
    mixer : CorpusMixer
    padding : sequence of int, optional
        How many tokens of padding stand before each prompt of the batch.

    Notes
    -----
    Temperature, top-k and top-p of `generate` come after it: they are of the mixture.
    """

    def __init__(self, mixer: CorpusMixer, padding: Sequence[int] | None = None) -> None:
        self.mixer = mixer
        self.padding = None if padding is None else list(padding)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """The mixture's log-probabilities: (B, T) ids and (B, V') logits → (B, V')."""
        ids = input_ids.cpu().numpy().astype(np.int64)
        mixed = torch.empty_like(scores, dtype=torch.float32)
        for places, rows in self._contexts(ids):
            mixed[places] = self.mixer.mix(scores[places], self.mixer.targets(rows, only_last=True))
        return mixed  # type: ignore[return-value]

    def _contexts(self, ids: Ints) -> list[tuple[list[int], Ints]]:
        """The last tokens of each row without its padding, rows of one length together."""
        length = self.mixer.context_tokens
        groups: dict[int, list[int]] = {}
        for row in range(ids.shape[0]):
            skipped = 0 if self.padding is None else self.padding[row * len(self.padding) // ids.shape[0]]
            groups.setdefault(min(length, ids.shape[1] - skipped), []).append(row)
        return [(rows, ids[rows, ids.shape[1] - size :]) for size, rows in groups.items()]
