"""Text straight from the corpus teacher: an n-gram model of the index, sampled for many sequences at once.

Naively: ask for the target after each sequence's text so far, draw a token, append it. Here a step is one call for all
sequences, with just so many tokens of context as the estimator looks at, so that its cost doesn't grow with the text.
Each token can carry its evidence: how long a context the corpus knew, and how often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import (
    CorpusIndex,
    Drawn,
    Estimator,
    EstimatorLike,
    Recall,
    SparseTargets,
    draw_tokens,
    fit_file,
    fit_recall,
    working_s,
)

from corpus_teacher.analysis.nearby import NearbyForm, nearby_forms
from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.drawing import Drawer, DrawOptions
from corpus_teacher.data.opening import fitted_estimator, index_tokenizer, open_index
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Tokens that were drawn.

    Parameters
    ----------
    tokens : ndarray of shape (n, L), int64
        −1 after the end of a sequence's document.
    match_len : ndarray of shape (n, L), int32
        Tokens of the longest context that the estimator used for each token.
    context_count : ndarray of shape (n, L), int64
        How often the corpus continues that context.
    """

    tokens: Ints
    match_len: npt.NDArray[np.int32]
    context_count: Ints

    @property
    def num_tokens(self) -> int:
        """Of all sequences."""
        return int((self.tokens >= 0).sum())


@dataclass(frozen=True)
class DrawnStep:
    """One token of each sequence that hasn't ended, with its evidence as in `Sequences`.

    Parameters
    ----------
    rows : ndarray of shape (r,), int64
        Which sequences.
    tokens : ndarray of shape (r,), int64
    match_len : ndarray of shape (r,), int32
    context_count : ndarray of shape (r,), int64
    """

    rows: Ints
    tokens: Ints
    match_len: npt.NDArray[np.int32]
    context_count: Ints


@dataclass(frozen=True)
class SampledToken:
    """A token with its evidence: the order (tokens of context known to the corpus) and that context's count."""

    token: int
    text: str
    order: int
    count: int


@dataclass(frozen=True)
class Sample:
    """One sequence.

    Parameters
    ----------
    text : str
        What was drawn, without the prompt and the end-of-document token.
    ended : bool
        Whether its document ended before the length was reached.
    num_tokens : int
    tokens : list of SampledToken
        Empty unless evidence was asked for.
    """

    text: str
    ended: bool
    num_tokens: int
    tokens: list[SampledToken]


@dataclass(frozen=True)
class SampleAnswer:
    """What `corpus-teacher sample` tells.

    Parameters
    ----------
    prompt : str
    estimator : str
    max_order : int, optional
    seed : int
    samples : list of Sample
    num_tokens : int
        Of all samples.
    sampling_s, tokens_per_s : float
        Seconds of the drawing, and its rate; opening the index, fitting and compiling come before.
    mean_order : float
        Tokens of known context, on average.
    prompt_tokens : list of str
        How the prompt was cut.
    nearby : list of NearbyForm
        Other forms of the prompt that occur far more often.
    fit_file : str, optional
        Where the fit of the estimator is kept.
    """

    prompt: str
    estimator: str
    max_order: int | None
    seed: int
    samples: list[Sample]
    num_tokens: int
    sampling_s: float
    tokens_per_s: float
    mean_order: float
    prompt_tokens: list[str] = field(default_factory=list)
    nearby: list[NearbyForm] = field(default_factory=list)
    fit_file: str | None = None


def sample_sequences(
    index: CorpusIndex,
    *,
    prompt: npt.ArrayLike = (),
    num: int = 1,
    length: int = 100,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = 5,
    draw: DrawOptions | None = None,
    explicit: int | None = None,
    recall: bool | Recall = False,
    seed: int = 0,
) -> Sequences:
    """Draw sequences of tokens from an estimator over an index.

    Parameters
    ----------
    index : CorpusIndex
    prompt : array_like of int, shape (p,)
        The context of all sequences, inside a document; empty: they start where documents start.
    num, length : int
        How many sequences, of how many tokens at most; one ends with its document.
    estimator : str, path, mapping or Estimator
        See `corpus_index.resolve_estimator`.
    max_order : int, optional
        Tokens of the longest context; None: no bound, and a cost that grows with the text. An `Estimator` has its own.
    draw : DrawOptions, optional
        Temperature, top-k and top-p.
    explicit : int, optional
        At most that many explicit tokens a target, as a teacher's (its `top_k`), the rest of the mass on the base;
        twice as fast. None: the estimator's own distribution, exactly.
    recall : bool or Recall
        Mix in what followed the same last tokens earlier in the sequence (`corpus_index.fit_recall`); slower.
    seed : int
        The same seed gives the same tokens.

    Returns
    -------
    Sequences

    Raises
    ------
    ConfigError, QueryError
        If an option is out of range, or a token of the prompt.
    """
    steps = draw_steps(
        index,
        prompt=prompt,
        num=num,
        length=length,
        estimator=estimator,
        max_order=max_order,
        draw=draw,
        explicit=explicit,
        recall=recall,
        seed=seed,
    )
    answer = Sequences(
        np.full((num, length), -1, np.int64), np.zeros((num, length), np.int32), np.zeros((num, length), np.int64)
    )
    for number, step in enumerate(steps):
        answer.tokens[step.rows, number] = step.tokens
        answer.match_len[step.rows, number] = step.match_len
        answer.context_count[step.rows, number] = step.context_count
    return answer


def draw_steps(
    index: CorpusIndex,
    *,
    prompt: npt.ArrayLike = (),
    num: int = 1,
    length: int = 100,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = 5,
    draw: DrawOptions | None = None,
    explicit: int | None = None,
    recall: bool | Recall = False,
    seed: int = 0,
) -> Iterator[DrawnStep]:
    """Draw sequences as `sample_sequences` does, and give one token of each as soon as it is drawn.

    Parameters
    ----------
    index, prompt, num, length, estimator, max_order, draw, explicit, recall, seed
        As in `sample_sequences`; options are checked before the first token.

    Returns
    -------
    iterator of DrawnStep
        At most `length`; it ends early where all documents have ended.

    Raises
    ------
    ConfigError, QueryError
        If an option is out of range, or a token of the prompt.
    """
    for name, value in (("num", num), ("length", length), ("explicit", explicit)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value} is too small: it must be at least 1")
    fitted = index.fitted(estimator, max_order)
    mixture = fit_recall(index, fitted) if recall is True else recall or None
    given = np.asarray(prompt, np.int64).reshape(-1)
    return _steps(index, given, num, length, fitted, draw or DrawOptions(), explicit, mixture, seed)


def _steps(
    index: CorpusIndex,
    given: Ints,
    num: int,
    length: int,
    fitted: Estimator,
    draw: DrawOptions,
    explicit: int | None,
    mixture: Recall | None,
    seed: int,
) -> Iterator[DrawnStep]:
    """One token of each sequence that goes on, `length` times."""
    starts = given.size == 0
    if starts and index.end_of_document is not None:
        given = np.array([index.end_of_document], np.int64)  # a context starts anew after it
    generator = np.random.default_rng(seed)
    drawer: Drawer | None = None
    exactly = explicit is None and draw.is_plain and not fitted.excludes and mixture is None
    text = np.empty((num, given.size + length), np.int64)
    text[:, : given.size] = given
    window = None if fitted.max_order is None or mixture is not None else max(1, fitted.max_order)
    active = np.arange(num)
    for step in range(length):
        known = given.size + step
        if known == 0:  # no token to lead a context with
            first = index.next_tokens([], starts_document=True)
            shares = np.cumsum(first.counts, dtype=np.float64)
            drawn = first.token_ids[np.searchsorted(shares, generator.random(num) * shares[-1], side="right")]
            match_len = np.zeros(num, np.int32)
            context_count = np.full(num, first.context_count, np.int64)
        else:
            begin = 0 if window is None else max(0, known - window)
            context, at_start = text[active, begin:known], starts and begin == 0
            found: Drawn | SparseTargets
            if exactly:
                found = draw_tokens(index, context, generator, estimator=fitted, starts_document=at_start)
                drawn = found.token_ids
            else:
                how: dict[str, Any] = {
                    "top_k": explicit or index.vocab_size,
                    "shortlist": explicit,
                    "starts_document": at_start,
                    "only_last": True,
                }
                if mixture is None:
                    found = index.smoothed_targets(context, estimator=fitted, **how)
                else:
                    found = mixture.smoothed_targets(index, context, **how)
                if drawer is None:
                    drawer = Drawer(found.base, draw, generator)
                drawn = drawer.draw(found)
            match_len, context_count = found.match_len, found.context_count
        text[active, known] = drawn
        yield DrawnStep(active, drawn, match_len, context_count)
        if index.end_of_document is not None:
            active = active[drawn != index.end_of_document]
            if active.size == 0:
                break


def sample_index(
    path: str | Path,
    prompt: str = "",
    *,
    num: int = 1,
    length: int = 100,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = 5,
    draw: DrawOptions | None = None,
    seed: int = 0,
    evidence: bool = False,
    explicit: int | None = None,
    recall: bool = False,
    tokenizer: str | None = None,
    progress: Progress = silent,
) -> SampleAnswer:
    """Open an index, draw sequences and put them into words; parameters as in `sample_sequences`.

    Parameters
    ----------
    path : str or Path
        Of the index.
    prompt : str
        Its text; empty: sequences start where documents start.
    evidence : bool
        Give every token with its order and count.
    tokenizer : str, optional
        For an index of ready tokens.
    progress : callable
        Is told of fits that take long.

    Raises
    ------
    IndexFormatError, TokenizerError, ConfigError, QueryError
    """
    if max_order is not None and max_order < 0:
        raise ConfigError(f"max_order {max_order} is too small: it must be at least 0")
    with open_index(path) as index:
        words = index_tokenizer(index, tokenizer)
        fitted = fitted_estimator(index, estimator, max_order, progress)
        if recall:
            progress("fit the recall", 0, None)
        options: dict[str, Any] = {
            "prompt": words.encode(prompt).astype(np.int64),
            "num": num,
            "estimator": fitted,
            "draw": draw,
            "explicit": explicit,
            "recall": fit_recall(index, fitted) if recall else False,
            "seed": seed,
        }
        sample_sequences(index, **{**options, "num": 1}, length=min(length, 2))  # compiles, if that is to be done
        begin = working_s()
        drawn = sample_sequences(index, **options, length=length)
        seconds = working_s() - begin
        samples = [_sample(index, words, drawn, row, evidence) for row in range(num)]
        nearby = nearby_forms(index, words, prompt)
        cut = [words.token_text(token) for token in options["prompt"].tolist()]
        kept = fit_file(index, fitted)
    return SampleAnswer(
        prompt=prompt,
        estimator=fitted.name + (" + recall" if recall else ""),
        max_order=fitted.max_order,
        seed=seed,
        samples=samples,
        num_tokens=drawn.num_tokens,
        sampling_s=seconds,
        tokens_per_s=drawn.num_tokens / max(seconds, 1e-9),
        mean_order=float(drawn.match_len[drawn.tokens >= 0].mean()),
        prompt_tokens=cut,
        nearby=nearby,
        fit_file=None if kept is None or not kept.is_file() else str(kept),
    )


def _sample(index: CorpusIndex, words: Tokenizer, drawn: Sequences, row: int, evidence: bool) -> Sample:
    tokens = drawn.tokens[row]
    tokens = tokens[tokens >= 0]
    ended = bool(tokens[-1] == index.end_of_document)
    return Sample(
        text=words.decode(tokens[:-1] if ended else tokens),
        ended=ended,
        num_tokens=tokens.size,
        tokens=[
            SampledToken(token, words.token_text(token), order, count)
            for token, order, count in zip(
                tokens.tolist(), drawn.match_len[row].tolist(), drawn.context_count[row].tolist(), strict=False
            )
        ]
        if evidence
        else [],
    )
