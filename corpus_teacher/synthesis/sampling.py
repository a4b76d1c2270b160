"""Batches of documents from a sampler: prompts of any lengths in, documents with the teacher's confidence out.

Naively: for each prompt, ask, draw, append, until the document ends. Here the rows of a batch step together. They begin
with as many tokens as the shortest prompt has; while a longer prompt lasts, its own tokens take the place of the drawn
ones. So there is no padding, which models and estimators would each have to be told about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.synthesis.samplers import Sampler

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampledDocument:
    """One document with its evidence.

    Parameters
    ----------
    prompt : ndarray of shape (p,), int64
    tokens : ndarray of shape (n,), int64
        What was drawn after it, without the token that ends the document.
    ended : bool
        Whether that token was drawn before the length was reached.
    confidence : float
        Mean log-probability, nats per drawn token (the ending one included), that the teacher gave before temperature
        and cuts.
    """

    prompt: Ints
    tokens: Ints
    ended: bool
    confidence: float

    def written(self, *, keep_prompt: bool) -> Ints:
        """The tokens that go into a corpus, shape (p + n,) or (n,)."""
        return np.concatenate([self.prompt, self.tokens]) if keep_prompt else self.tokens


def sample_documents(
    sampler: Sampler,
    prompts: Sequence[npt.ArrayLike],
    *,
    length: int,
    draw: DrawOptions | None = None,
    generator: np.random.Generator,
) -> list[SampledDocument]:
    """Sample one document for each prompt.

    Parameters
    ----------
    sampler : Sampler
    prompts : sequence of array_like of int, shape (p,)
        How each document begins; empty: with a token that is drawn.
    length : int
        Tokens to draw at most, the one that ends the document included.
    draw : DrawOptions, optional
        Temperature, top-k and top-p.
    generator : numpy Generator
        The only source of chance.

    Returns
    -------
    list of SampledDocument
        In the order of the prompts.

    Raises
    ------
    ConfigError
        A length below 1, or more tokens than the model has positions for.
    InputError
        A prompt with a token outside of the vocabulary.
    """
    if length < 1:
        raise ConfigError(f"length is {length}: draw at least 1 token")
    given = [_checked(prompt, sampler.vocab_size) for prompt in prompts]
    if not given:
        return []
    sizes = np.array([prompt.size for prompt in given])
    shortest, longest = int(sizes.min()), int(sizes.max())
    if sampler.longest is not None and longest + length > sampler.longest:
        raise ConfigError(
            f"a prompt of {longest} tokens and {length} drawn ones are more than the {sampler.longest} that the model "
            "has positions for: shorten the prompts or the length"
        )
    text = np.zeros((len(given), longest + length), np.int64)
    for row, prompt in enumerate(given):
        text[row, : prompt.size] = prompt
    drawn = np.zeros(len(given), np.int64)
    ended = np.zeros(len(given), np.bool_)
    log_probs = np.zeros(len(given))
    active = np.arange(len(given))
    contexts = sampler.begin(text[:, :shortest])
    options = draw or DrawOptions()
    for place in range(shortest, text.shape[1]):
        tokens, scores = contexts.draw(options, generator)
        is_drawn = place >= sizes[active]
        tokens = np.where(is_drawn, tokens, text[active, place])
        text[active, place] = tokens
        new = active[is_drawn]
        drawn[new] += 1
        log_probs[new] += scores[is_drawn]
        if sampler.end_of_document is not None:
            ended[new] = tokens[is_drawn] == sampler.end_of_document
        stay = np.flatnonzero(~ended[active] & (drawn[active] < length))
        active = active[stay]
        if active.size == 0:
            break
        contexts.advance(tokens, stay)
    return [
        SampledDocument(
            prompt=prompt,
            tokens=text[row, prompt.size : prompt.size + drawn[row] - ended[row]],
            ended=bool(ended[row]),
            confidence=float(log_probs[row] / drawn[row]),
        )
        for row, prompt in enumerate(given)
    ]


def _checked(prompt: npt.ArrayLike, vocab_size: int) -> npt.NDArray[Any]:
    tokens = np.asarray(prompt, np.int64).reshape(-1)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        wrong = int(tokens.min()) if tokens.min() < 0 else int(tokens.max())
        raise InputError(f"token {wrong} of a prompt is outside of the vocabulary of {vocab_size:,}")
    return tokens
