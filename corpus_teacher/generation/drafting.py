"""Draft tokens out of the corpus, which a language model confirms several at a time.

Assisted (speculative) decoding: a cheap source proposes the next tokens, the model reads them all in one step and keeps
those that it would have chosen itself. Here the source is the index: what most often followed the longest context that
the corpus knows. Each draft token comes with its evidence, and a draft ends where that gets weak.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.generation.candidate_generator import CandidateGenerator

from corpus_teacher.errors import ConfigError
from corpus_teacher.teacher import CorpusTeacher

_CONTEXT = 32  # tokens that are looked up


@dataclass(frozen=True)
class Draft:
    """A draft token with its evidence: the context's length and count, and the share of it that this token followed."""

    token: int
    match_len: int
    count: int
    share: float


class CorpusDrafter(CandidateGenerator):
    """Proposes continuations that the corpus has seen, for assisted decoding.

    Parameters
    ----------
    index : CorpusIndex or path
        Of the model's own tokens.
    num_tokens : int
        Draft tokens at most.
    min_match_len : int
        Tokens of context that the corpus has to know.
    min_count : int
        How often the context has to occur.
    min_share : float
        The share of the context's occurrences that the draft token has to have followed.

    Attributes
    ----------
    proposed, accepted, steps : int
        Draft tokens so far, those that the model confirmed, and steps of the model.
    drafts : list of Draft
        The last ones.

    Raises
    ------
    ConfigError
        An option out of range.
    """

    def __init__(
        self,
        index: Any,
        *,
        num_tokens: int = 8,
        min_match_len: int = 2,
        min_count: int = 1,
        min_share: float = 0.4,
    ) -> None:
        for name, value in (("num_tokens", num_tokens), ("min_match_len", min_match_len), ("min_count", min_count)):
            if value < 1:
                raise ConfigError(f"{name} is {value}: give at least 1")
        if not 0 <= min_share <= 1:
            raise ConfigError(f"min_share is {min_share}: give a share from 0 to 1")
        self.index = CorpusTeacher(index, leave_out=None).index if isinstance(index, (str, Path)) else index
        self._max_length: int | None = None
        self.num_tokens = num_tokens
        self.min_match_len = min_match_len
        self.min_count = min_count
        self.min_share = min_share
        self.clear()

    def clear(self) -> None:
        """Count anew."""
        self.proposed = self.accepted = self.steps = 0
        self.drafts: list[Draft] = []

    @property
    def acceptance(self) -> float:
        """The share of draft tokens that the model confirmed."""
        return self.accepted / max(1, self.proposed)

    def propose(self, context: list[int]) -> list[Draft]:
        """Draft tokens after a context, with their evidence; none where the corpus doesn't know it well enough.

        Parameters
        ----------
        context : list of int
            The tokens so far.
        """
        tokens = list(context[-_CONTEXT:])
        drafts: list[Draft] = []
        while len(drafts) < self.num_tokens:
            known = [place for place, token in enumerate(tokens) if not 0 <= token < self.index.vocab_size]
            usable = tokens[known[-1] + 1 :] if known else tokens
            found = self.index.next_tokens(np.array(usable, np.int64), min_count=self.min_count)
            if int(found.match_len) < self.min_match_len or not len(found.counts):
                break
            best = int(np.argmax(found.counts))
            share = int(found.counts[best]) / max(1, int(found.context_count))
            if share < self.min_share:
                break
            drafts.append(
                Draft(int(found.token_ids[best]), int(found.match_len), int(found.context_count), float(share))
            )
            if drafts[-1].token == self.index.end_of_document:
                break
            tokens = [*tokens, drafts[-1].token][-_CONTEXT:]
        return drafts

    def get_candidates(self, input_ids: torch.LongTensor, **options: Any) -> tuple[torch.LongTensor, Any]:
        """The row so far with the draft behind it, (1, T + drafts); as assisted decoding asks for it."""
        del options
        self.drafts = self.propose(input_ids[0].tolist())
        if self._max_length is not None:  # the model adds a token of its own
            self.drafts = self.drafts[: max(0, self._max_length - input_ids.shape[1] - 1)]
        if not self.drafts:
            return input_ids, None
        tokens = torch.tensor([[one.token for one in self.drafts]], dtype=input_ids.dtype, device=input_ids.device)
        return torch.cat([input_ids, tokens], 1), None  # type: ignore[return-value]

    def update_candidate_strategy(self, input_ids: torch.LongTensor, scores: Any, num_matches: Any) -> None:
        """Count what was confirmed."""
        del input_ids, scores
        self.steps += 1
        self.proposed += len(self.drafts)
        self.accepted += int(num_matches)

    def generate(self, model: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        """A model's `generate` with the corpus's drafts; one prompt at a time.

        Parameters
        ----------
        model : transformers.PreTrainedModel
        input_ids : Tensor of shape (1, T), int64
        **options
            Of `generate`.

        Raises
        ------
        ConfigError
            Several prompts: a limit of transformers.
        """
        if input_ids.shape[0] != 1:
            raise ConfigError(f"drafts are confirmed for one prompt at a time, there are {input_ids.shape[0]}")
        with self._drafting(model):
            settings = {"use_cache": True, **options, "prompt_lookup_num_tokens": self.num_tokens}
            return model.generate(input_ids, **settings)

    @contextmanager
    def _drafting(self, model: Any) -> Iterator[None]:
        """In this block the model's assisted decoding takes its candidates from here."""

        def mine(generation_config: Any, **options: Any) -> CorpusDrafter:
            del options
            self._max_length = generation_config.max_length
            return self

        model._get_candidate_generator = mine
        try:
            yield
        finally:
            del model._get_candidate_generator
            self._max_length = None
