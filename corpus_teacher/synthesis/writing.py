"""Synthetic corpora: sample, filter, write, until the target is reached; a run that was killed goes on where it was.

Naively: sample documents and write those that pass. Here batch number b of a run has the seed (seed, b) and the prompts
from b · B on, and nothing else: so the batches that are there are those that an uninterrupted run would have made, and
what comes after them is the same, to the byte.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, working_s

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.data.tokenizers import Tokenizer, token_dtype
from corpus_teacher.errors import ConfigError
from corpus_teacher.files import held_folder
from corpus_teacher.provenance import versions
from corpus_teacher.synthesis.filters import REASONS, Filters, judge, report_of
from corpus_teacher.synthesis.folder import (
    FORMS,
    PARTS,
    Part,
    begin_folder,
    read_parts,
    read_record,
    write_corpus,
    write_part,
    write_record,
)
from corpus_teacher.synthesis.measures import digest
from corpus_teacher.synthesis.prompts import Prompts
from corpus_teacher.synthesis.samplers import Sampler
from corpus_teacher.synthesis.sampling import SampledDocument, sample_documents

_BARREN_BATCHES = 50
"""A run gives up after so many batches in a row without a document that is kept."""


@dataclass(frozen=True)
class Target:
    """When a run ends: at the first bound that is reached. The document that reaches it is whole.

    Parameters
    ----------
    tokens, documents : int, optional
        Of the corpus; prompts, where they are kept, and ends of documents count.
    samples : int, optional
        Documents that are sampled, kept or not.

    Raises
    ------
    ConfigError
        A bound below 1.
    """

    tokens: int | None = None
    documents: int | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "documents", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"the target is {value} {name}: ask for at least 1")


@dataclass(frozen=True)
class SynthesisSummary:
    """What came of it.

    Attributes
    ----------
    path : str
    teacher : dict
    form : str
    documents, tokens : int
        Of the corpus.
    report : dict
        See `report_of`.
    new_samples : int
        Documents that this run sampled; others were there.
    drawn_tokens : int
        That this run drew.
    seconds, tokens_per_s : float
        Of sampling and filtering in this run, and its drawn tokens over them.
    """

    path: str
    teacher: dict[str, Any]
    form: str
    documents: int
    tokens: int
    report: dict[str, Any]
    new_samples: int
    drawn_tokens: int
    seconds: float
    tokens_per_s: float


@dataclass(frozen=True)
class WritingOptions:
    """How a synthetic corpus is drawn, filtered and written.

    Parameters
    ----------
    target : Target
        Without a bound: one sample for each prompt.
    keep_prompt : bool
        Whether documents are written with their prompts.
    length : int
        Tokens to draw at most.
    draw : DrawOptions
    filters : Filters
    form : {"tokens", "jsonl"}
        Of the files; see `corpus_teacher.synthesis.folder`.
    batch_size : int
        B: documents that are sampled at once.
    seed : int
    overwrite : bool
        Begin anew where there is a synthetic corpus already.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    target: Target = field(default_factory=Target)
    keep_prompt: bool = True
    length: int = 256
    draw: DrawOptions = field(default_factory=DrawOptions)
    filters: Filters = field(default_factory=Filters)
    form: str = "tokens"
    batch_size: int = 64
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"the form is {self.form!r}: give {' or '.join(FORMS)}")
        if self.batch_size < 1 or self.length < 1 or self.seed < 0:
            raise ConfigError(
                f"batch_size is {self.batch_size}, length {self.length} and seed {self.seed}: give at least 1, at "
                "least 1, and 0 or more"
            )


def write_synthetic_corpus(
    sampler: Sampler,
    out: str | Path,
    options: WritingOptions | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    prompts: Prompts | None = None,
    novelty_index: CorpusIndex | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> SynthesisSummary:
    """Sample documents from a teacher, keep those that pass the filters, and write them as a corpus.

    Parameters
    ----------
    sampler : Sampler
    out : str or Path
        A new folder, or one that was begun with the same arguments, which is completed.
    options : WritingOptions, optional
        How; or its fields, by name.
    tokenizer : Tokenizer, optional
        The teacher's, which goes into the folder; text needs it.
    prompts : Prompts, optional
        How the documents begin.
    novelty_index : CorpusIndex, optional
        What `Filters` measures novelty against.
    progress : Progress
        Given the stage "sample".

    Returns
    -------
    SynthesisSummary

    Raises
    ------
    ConfigError
        An argument out of range; no target; a folder that was begun with others; filters that let nothing pass.
    OutputError, InputError
        A folder that can't be written, or is damaged.
    """
    how = replace(options or WritingOptions(), **settings)
    out, target, filters, form, batch_size = Path(out), how.target, how.filters, how.form, how.batch_size
    if target == Target():
        if prompts is None:
            raise ConfigError("nothing says when to stop: give a number of tokens, documents or samples, or prompts")
        target = Target(samples=len(prompts))
    if form == "jsonl" and tokenizer is None:
        raise ConfigError("text needs a tokenizer: name the teacher's, or write tokens")
    if filters.needs_index and novelty_index is None:
        raise ConfigError("there is a bound on novelty and no index to measure it against: give one")
    if novelty_index is not None and novelty_index.vocab_size < sampler.vocab_size:
        raise ConfigError(
            f"novelty is to be measured against an index of {novelty_index.vocab_size:,} tokens and the teacher has "
            f"{sampler.vocab_size:,}: give an index with the teacher's tokenizer"
        )
    recorded: dict[str, Any] = {
        "teacher": sampler.identity(),
        "target": target.__dict__,
        "prompts": None if prompts is None else {"number": len(prompts), "sha256": prompts.fingerprint()},
        "keep_prompt": how.keep_prompt,
        "length": how.length,
        "draw": how.draw.__dict__,
        "filters": filters.describe(),
        "novelty_index": None if novelty_index is None else novelty_index.fingerprint,
        "tokenizer": None if tokenizer is None else tokenizer.fingerprint,
        "form": form,
        "batch_size": batch_size,
        "seed": how.seed,
    }
    begin = working_s()
    run = _Run(out, target)
    drawn = new = 0
    with held_folder(out, "being written"):
        if not begin_folder(out, recorded, versions(), overwrite=how.overwrite):
            run.take_over(sampler.end_of_document)
            while not run.is_over:
                run.check_fruitful()
                size = batch_size if target.samples is None else min(batch_size, target.samples - run.samples)
                numbers = range(run.samples, run.samples + size)
                documents = sample_documents(
                    sampler,
                    [() if prompts is None else prompts[number] for number in numbers],
                    length=how.length,
                    draw=how.draw,
                    generator=np.random.default_rng([how.seed, run.num_parts]),
                )
                found = judge(documents, filters, seen=run.seen, index=novelty_index, keep_prompt=how.keep_prompt)
                run.add(documents, found, sampler, keep_prompt=how.keep_prompt)
                drawn += sum(document.tokens.size + document.ended for document in documents)
                new += len(documents)
                progress("sample", *run.share, run.tokens)
            run.finish(recorded, form, tokenizer, sampler.end_of_document)
        seconds = working_s() - begin
        record = read_record(out)
    return SynthesisSummary(
        path=str(out),
        teacher=recorded["teacher"],
        form=form,
        documents=record["documents"],
        tokens=record["tokens"],
        report=record["report"],
        new_samples=new,
        drawn_tokens=drawn,
        seconds=seconds,
        tokens_per_s=drawn / max(seconds, 1e-9),
    )


class _Run:
    """How far a run is."""

    def __init__(self, out: Path, target: Target) -> None:
        self.out, self.target = out, target
        self.num_parts = self.samples = self.documents = self.tokens = self.barren = 0
        self.seen: set[bytes] = set()
        self.measures: list[npt.NDArray[Any]] = []

    @property
    def is_over(self) -> bool:
        """Whether the target is reached."""
        pairs = ((self.tokens, self.target.tokens), (self.documents, self.target.documents))
        return any(
            wanted is not None and done >= wanted for done, wanted in (*pairs, (self.samples, self.target.samples))
        )

    @property
    def share(self) -> tuple[int, int]:
        """What is done, of how much, by the first bound of the target."""
        for done, wanted in (
            (self.tokens, self.target.tokens),
            (self.documents, self.target.documents),
            (self.samples, self.target.samples),
        ):
            if wanted is not None:
                return min(done, wanted), wanted
        return 0, 1

    def take_over(self, end_of_document: int | None) -> None:
        """Count the parts that are there."""
        for part in read_parts(self.out):
            self._count(part)
            for document in part.documents():
                self.seen.add(digest(document if end_of_document is None else document[:-1]))

    def add(
        self, documents: list[SampledDocument], found: npt.NDArray[Any], sampler: Sampler, *, keep_prompt: bool
    ) -> None:
        """Write what is kept of a batch, up to the document that reaches the target."""
        end = [] if sampler.end_of_document is None else [sampler.end_of_document]
        kept: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
        stop, tokens, wanted = len(documents), self.tokens, self.target
        for number in np.flatnonzero(found["verdict"] == 0):
            kept.append(np.append(documents[number].written(keep_prompt=keep_prompt), np.array(end, np.int64)))
            tokens += kept[-1].size
            if (wanted.tokens is not None and tokens >= wanted.tokens) or (
                wanted.documents is not None and self.documents + len(kept) - 1 >= wanted.documents
            ):
                stop = int(number) + 1
                break
        sizes = np.array([document.size for document in kept[1:]], np.int64)
        part = Part(found[:stop], np.concatenate(kept).astype(token_dtype(sampler.vocab_size)), sizes)
        write_part(self.out, self.num_parts, part)
        self._count(part)

    def check_fruitful(self) -> None:
        """Give up where nothing passes.

        Raises
        ------
        ConfigError
            After too many batches without a document that is kept.
        """
        if self.barren >= _BARREN_BATCHES:
            verdicts = np.bincount(np.concatenate(self.measures)["verdict"], minlength=len(REASONS))
            worst = int(verdicts[1:].argmax()) + 1
            raise ConfigError(
                f"none of the last {_BARREN_BATCHES} batches held a document that passes; of {self.samples:,} in all "
                f"{verdicts[worst]:,} were dropped for {REASONS[worst]}: loosen that bound, draw in another way, or "
                "give other prompts"
            )

    def finish(
        self, settings: dict[str, Any], form: str, tokenizer: Tokenizer | None, end_of_document: int | None
    ) -> None:
        """Write the corpus and its record, and remove the parts.

        Raises
        ------
        ConfigError
            Nothing was kept.
        """
        report = report_of(np.concatenate(self.measures))
        if self.documents == 0:
            worst = max(report["dropped"], key=report["dropped"].get)
            raise ConfigError(
                f"none of {self.samples:,} documents passes the filters, {report['dropped'][worst]:,} of them for "
                f"{worst}: loosen that bound, or draw in another way"
            )
        files = write_corpus(self.out, form, tokenizer, end_of_document)
        versions = read_record(self.out)["versions"]
        counts = {"documents": self.documents, "tokens": self.tokens, "report": report, "files": files}
        write_record(self.out, {"complete": True, "settings": settings, "versions": versions, **counts})
        shutil.rmtree(self.out / PARTS, ignore_errors=True)

    def _count(self, part: Part) -> None:
        self.num_parts += 1
        self.samples += part.measures.size
        self.documents += part.sizes.size
        self.tokens += part.tokens.size
        self.barren = 0 if part.sizes.size else self.barren + 1
        self.measures.append(part.measures)
