"""From names to a synthetic corpus: a model, an index or both, prompts and a folder, as the command line names them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from corpus_teacher.data.documents import UNPACK_RATIO, Progress, silent
from corpus_teacher.data.opening import index_tokenizer, open_index
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, TokenizerError
from corpus_teacher.neural import NeuralTeacher, TargetFormat, load_model_tokenizer
from corpus_teacher.neural.devices import find_device, find_dtype
from corpus_teacher.neural.identity import check_same_tokenizer
from corpus_teacher.synthesis.prompts import Prompts, document_prompts
from corpus_teacher.synthesis.samplers import CorpusSampler, MixedSampler, NeuralSampler
from corpus_teacher.synthesis.writing import SynthesisSummary, WritingOptions, write_synthetic_corpus

_KEPT = TargetFormat(k=1)  # of its targets, which sampling does without


@dataclass(frozen=True)
class SynthesisOptions:
    """What `corpus-teacher synthesize` is asked for, beside the model and the folder.

    Parameters
    ----------
    index : str or Path, optional
        The folder of an index; None: the model alone teaches.
    corpus_weight : float
        Share of the index where both teach.
    estimator, max_order, explicit
        Of the corpus teacher; see `CorpusSampler`.
    prompt_texts : tuple of str
        Texts that the documents begin with, in turn.
    prompt_sources, prompt_tokens, text_field, unpack_ratio, token_dtype
        Or the beginnings of documents; see `document_prompts`.
    start_token : str, optional
        What a model's texts begin after, by its id or name; the end of a document by default.
    against : str or Path, optional
        The index that novelty is measured against; `index` by default.
    tokenizer : str, optional
        The teacher's, where it has none of its own.
    dtype, device : str, optional
        Of the model; see `find_dtype` and `find_device`.
    writing : WritingOptions
        Target, length, drawing, filters, form, batch size, seed.

    Raises
    ------
    ConfigError
        Settings that contradict each other.
    """

    index: str | Path | None = None
    corpus_weight: float = 0.5
    estimator: str = "witten-bell"
    max_order: int | None = 5
    explicit: int | None = None
    prompt_texts: Sequence[str] = ()
    prompt_sources: Sequence[str] = ()
    prompt_tokens: int | None = None
    start_token: str | None = None
    against: str | Path | None = None
    tokenizer: str | None = None
    text_field: str = "text"
    unpack_ratio: float = UNPACK_RATIO
    token_dtype: str = "auto"
    dtype: str | None = None
    device: str | None = None
    writing: WritingOptions = field(default_factory=WritingOptions)

    def __post_init__(self) -> None:
        if self.prompt_texts and self.prompt_sources:
            raise ConfigError("prompts are given as texts and as sources: give only one of both")
        if self.max_order is not None and self.max_order < 0:
            raise ConfigError(f"max_order is {self.max_order}: give at least 0")


_WRITING = {one.name for one in fields(WritingOptions)}


def synthesize(
    model: str | Path | None,
    out: str | Path,
    options: SynthesisOptions | None = None,
    *,
    progress: Progress = silent,
    **settings: Any,
) -> SynthesisSummary:
    """Sample a corpus from a model, an index, or both: what the command line does.

    Parameters
    ----------
    model : str or Path, optional
        As `load_model` loads it; None: the index alone teaches.
    out : str or Path
        As in `write_synthetic_corpus`.
    options : SynthesisOptions, optional
        What to do; or its fields, and those of `WritingOptions`, by name.
    progress : Progress
        As in `write_synthetic_corpus`.

    Raises
    ------
    ConfigError, InputError, TokenizerError, IndexFormatError, OutputError, QueryError
    """
    asked = options or SynthesisOptions()
    writing = {name: settings.pop(name) for name in list(settings) if name in _WRITING}
    asked = replace(asked, **settings, writing=replace(asked.writing, **writing))
    if model is None and asked.index is None:
        raise ConfigError("there is no teacher: give a model, an index, or both")
    dtype, device = find_dtype(asked.dtype), find_device(asked.device)
    with contextlib.ExitStack() as stack:
        corpus = None if asked.index is None else stack.enter_context(open_index(asked.index))
        words = None
        if corpus is not None and (
            model is not None or asked.tokenizer is not None or corpus.metadata.get("tokenizer")
        ):
            words = index_tokenizer(corpus, asked.tokenizer)
        samplers: list[Any] = []
        if corpus is not None:
            samplers.append(
                CorpusSampler(corpus, estimator=asked.estimator, max_order=asked.max_order, explicit=asked.explicit)
            )
        if model is not None:
            progress("load the model", 0, None)
            words = _shared_tokenizer(model, words, asked.tokenizer)
            size = words.vocab_size if corpus is None else corpus.vocab_size
            teacher = NeuralTeacher(model, tokenizer=words, vocab_size=size, kept=_KEPT, dtype=dtype, device=device)
            start = None if asked.start_token is None else words.find_token(asked.start_token)
            samplers.append(NeuralSampler(teacher, start_token=start))
        sampler = samplers[0] if len(samplers) == 1 else MixedSampler(*samplers, corpus_weight=asked.corpus_weight)
        known = corpus
        if asked.against is not None:
            known = stack.enter_context(open_index(asked.against))
            if words is not None and known.metadata.get("tokenizer"):
                check_same_tokenizer(words, index_tokenizer(known))
        prompts = None
        if asked.prompt_texts:
            if words is None:
                raise TokenizerError("prompts are texts and there is no tokenizer to read them with: name it")
            prompts = Prompts.of_lists([words.encode(text).astype(np.int64) for text in asked.prompt_texts])
        elif asked.prompt_sources:
            prompts = document_prompts(
                list(asked.prompt_sources),
                words,
                num_tokens=asked.prompt_tokens,
                vocab_size=sampler.vocab_size,
                seed=asked.writing.seed,
                text_field=asked.text_field,
                unpack_ratio=asked.unpack_ratio,
                token_dtype=asked.token_dtype,
                progress=progress,
            )
        return write_synthetic_corpus(
            sampler,
            out,
            asked.writing,
            tokenizer=words,
            prompts=prompts,
            novelty_index=known,
            progress=progress,
        )


def _shared_tokenizer(model: str | Path, of_index: Tokenizer | None, spec: str | None) -> Tokenizer:
    """The tokenizer of a model, which must be that of the index; one that the user names stands in where it has none.

    The index's own is used where there is one: it knows what ends the documents of the corpus.
    """
    own = load_model_tokenizer(model)
    named = of_index if of_index is not None or spec is None else load_tokenizer(spec)
    if own is not None and named is not None:
        check_same_tokenizer(own, named)
    found = own if named is None else named
    if found is None or (own is None and spec is None):
        raise TokenizerError(f"there is no tokenizer beside the model {model}: name the one that it was trained with")
    return found
