"""Sources → an index: read, train or load the tokenizer, tokenise, build; and account for each stage.

The text is read twice where a tokenizer is trained on it, else once; it is never whole in memory. The tokens
of text lie in a nameless file beside the index while it is built, which no exit can leave behind; ready
tokens are mapped where they lie.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from corpus_index import CorpusIndex, compiling_s, working_s
from corpus_index.build import compile_ahead
from corpus_index.store import check_target

from corpus_teacher.data.documents import Progress, ReadLog, silent
from corpus_teacher.data.file_kinds import Kind
from corpus_teacher.data.indexing import build_token_index
from corpus_teacher.data.memory import free_memory_bytes, tokens_within
from corpus_teacher.data.pipeline import TokenFile, tokenize_documents
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.ready_tokens import join_ready_tokens
from corpus_teacher.data.sources import Inventory, find_sources
from corpus_teacher.data.token_streams import TokenSource
from corpus_teacher.data.tokenizer_loading import load_chat_template, load_tokenizer
from corpus_teacher.data.tokenizers import (
    SpecialTokens,
    Tokenizer,
    parse_vocab_size,
    train_tokenizer,
)
from corpus_teacher.data.tokens import are_ready, open_ready_sources
from corpus_teacher.errors import ConfigError, OutputError, TokenizerError
from corpus_teacher.provenance import available_cores
from corpus_teacher.storage import written_path

_MOST_DESCRIBED = 8


@dataclass(frozen=True)
class BuildSummary:
    """What a build did, and what it took.

    Parameters
    ----------
    path : str
        Of the index.
    num_files, num_documents, num_tokens, vocab_size : int
    num_bytes : int
        UTF-8 bytes of the text; 0 for ready tokens.
    index_bytes : int
        Of all files of the index.
    stage_s : dict of str to float
        Seconds of each stage, in order.
    total_s : float
        Seconds of all, those of the compiler left out.
    peak_memory_bytes : int
        The process's largest resident set, mapped files included.
    skipped_files : dict of str to int
        Files that a folder or glob left out, by suffix.
    notes : tuple of str
        What the user should know, as sentences.
    compiling_s : float
        Seconds that went by while the engine's kernels were compiled, which happens once on a machine.
    """

    path: str
    tokenizer: str | None
    end_of_document: int | None
    num_files: int
    num_documents: int
    num_tokens: int
    vocab_size: int
    num_bytes: int
    index_bytes: int
    stage_s: dict[str, float]
    total_s: float
    peak_memory_bytes: int
    skipped_files: dict[str, int] = field(default_factory=dict)
    num_skipped_documents: int = 0
    num_replaced_documents: int = 0
    notes: tuple[str, ...] = ()
    compiling_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens over the seconds of all stages."""
        return self.num_tokens / max(self.total_s, 1e-9)

    @property
    def index_bytes_per_token(self) -> float:
        """Size on disk, the text included, per token."""
        return self.index_bytes / self.num_tokens

    @property
    def text_bytes_per_token(self) -> float | None:
        """How much text a token holds; None for ready tokens."""
        return self.num_bytes / self.num_tokens if self.num_bytes else None

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        derived = ("tokens_per_s", "index_bytes_per_token", "text_bytes_per_token")
        return {**self.__dict__, **{name: getattr(self, name) for name in derived}}


@dataclass(frozen=True)
class BuildOptions:
    """How to build; the options of `corpus-teacher index build`.

    Parameters
    ----------
    tokenizer : str, optional
        `train:VOCAB`, `bytes`, a tokenizer.json, a folder or a name; text needs one.
    end_of_document : str or int, optional
        The id (or name) of the token that ends a document, where the tokenizer doesn't say.
    vocab_size : int, optional
        V of ready tokens without a tokenizer; the largest id + 1 by default.
    kind : str, optional
        What files of an unknown suffix hold.
    dtype : {"auto", "uint16", "uint32"}
        Of raw .bin files; see `open_ready_tokens`.
    special_tokens : {"text", "ids"}, optional
        How text is read that contains the name of a special token; kept in the index, for queries. "text" by default,
        "ids" with `chat`.
    chat : bool
        Make text of lists of chat messages ({"messages": …}) with the tokenizer's chat template.
    doc_offsets : Path, optional
        Where the documents of one file of ready tokens begin.
    force : bool
        Replace an index that stands at `out`.
    workers : int, optional
        Threads; all cores by default.
    shard_tokens : int, optional
        A larger corpus is cut at document boundaries into shards of at most that many tokens.
    memory : int, optional
        Bytes that the building may take, which decide on shards where their tokens aren't given; half of what is free
        by default, limits of control groups respected.
    layout : {"full", "compact"}
        What the index stores; see `corpus_index.build_index`.
    """

    tokenizer: str | None = None
    end_of_document: str | int | None = None
    vocab_size: int | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    kind: Kind | None = None
    dtype: str = "auto"
    special_tokens: SpecialTokens | None = None
    chat: bool = False
    doc_offsets: Path | None = None
    force: bool = False
    workers: int | None = None
    shard_tokens: int | None = None
    memory: int | None = None
    layout: str = "full"


class StageClock:
    """Seconds of each stage, those of the compiler left out."""

    def __init__(self) -> None:
        self.begin, self.compiled = working_s(), compiling_s()
        self.stage_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage, for the time of a block."""
        begin = working_s()
        yield
        self.stage_s[name] = working_s() - begin

    @property
    def total_s(self) -> float:
        """Seconds so far."""
        return working_s() - self.begin

    @property
    def compiling_s(self) -> float:
        """Seconds of the compiler so far."""
        return compiling_s() - self.compiled


def build_index_from_sources(
    specs: list[str],
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    progress: Progress = silent,
) -> BuildSummary:
    """Build an index from whatever the user named.

    Parameters
    ----------
    specs : list of str
        See `find_sources`.
    out : str or Path
        The folder of the index; it appears when it is complete.
    options : BuildOptions, optional
    progress : callable, optional
        Told about the stages "read for the tokenizer", "train the tokenizer", "tokenize" and "build: …".

    Raises
    ------
    IndexExistsError
        If `out` exists and is not to be replaced.
    InputError, TokenizerError, CorpusError, InsufficientMemoryError, OutputError, IndexWriteError
        See there; nothing is left behind.
    """
    options = options or BuildOptions()
    clock, log, notes = StageClock(), ReadLog(), list[str]()
    out = prepare_target(Path(out), force=options.force)
    inventory = find_sources(specs, kind=options.kind)
    if inventory.repeated:
        notes.append(f"{inventory.repeated} files were named more than once and are read once")
    if are_ready(inventory, options.read):
        tokenizer, corpus, vocab_size, end = ready_corpus(inventory, out, options, clock, notes, progress)
    else:
        options = with_chat(options)
        tokenizer = tokenizer_for(inventory, options, clock, progress)
        with clock.stage("tokenize"):
            corpus = tokenize_documents(
                inventory.documents(options.read, log),
                tokenizer,
                folder=out.parent,
                workers=options.workers,
                progress=progress,
                log=log,
                total=inventory.size_bytes,
                keep_names=True,
            )
        vocab_size, end = tokenizer.vocab_size, tokenizer.end_of_document
        notes.extend(tokenizer_notes(tokenizer, options))
    notes.extend(log.sentences)
    with clock.stage("build"):
        index = build_token_index(
            corpus,
            tokenizer,
            out,
            sources=specs,
            num_files=len(inventory.sources),
            vocab_size=vocab_size,
            end_of_document=end,
            overwrite=options.force,
            workers=options.workers,
            progress=lambda stage, share: progress(f"build: {stage}", share, 1.0),
            layout=options.layout,
            shard_tokens=shard_tokens_of(options, vocab_size, corpus.num_documents / corpus.tokens.size),
            memory=options.memory,
        )
    with index:
        return summary_of(index, corpus.num_bytes, inventory, tokenizer, log, clock, notes)


def shard_tokens_of(
    options: BuildOptions, vocab_size: int, documents_per_token: float = 0.0, *, copies: int = 0
) -> int:
    """Tokens of a shard at most: as asked for, or what the memory allows; see `tokens_within`."""
    if options.shard_tokens is not None:
        return options.shard_tokens
    memory = free_memory_bytes() // 2 if options.memory is None else options.memory
    workers = options.workers or available_cores()
    return tokens_within(memory, vocab_size, documents_per_token, workers=workers, copies=copies)


def prepare_target(out: Path, *, force: bool) -> Path:
    """The folder that an index is to be; what would fail late is refused: one that stands, or that can't be made.

    Raises
    ------
    IndexExistsError, OutputError
    """
    out = written_path(out)
    check_target(out, overwrite=force)
    if out.parent.exists() and not out.parent.is_dir():
        raise OutputError(f"{out.parent} is a file, so no index can be made in it: choose another folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {out.parent} can't be made: {error.strerror or error}") from error
    return out


def peak_memory_bytes() -> int:
    """The largest resident set of this process so far; 0 where the system doesn't tell."""
    try:
        import resource
    except ImportError:  # not on every system
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def with_chat(options: BuildOptions) -> BuildOptions:
    """The options with what makes text of chat messages, where that is asked for."""
    if not options.chat:
        return options
    render = load_chat_template(options.tokenizer or "")
    field = "messages" if options.read.text_field == "text" else options.read.text_field
    read = replace(options.read, text_field=field, render=render)
    return replace(options, read=read, special_tokens=options.special_tokens or "ids")


def tokenizer_for(inventory: Inventory, options: BuildOptions, clock: StageClock, progress: Progress) -> Tokenizer:
    """Load the tokenizer, or train it on the sources."""
    if options.tokenizer is None:
        raise TokenizerError(
            "text needs a tokenizer: give `tokenizer`: train:VOCAB, bytes, a tokenizer.json, a folder or a name"
        )
    size = parse_vocab_size(options.tokenizer)
    if size is not None:
        compile_ahead(size)
    if size is None:
        with clock.stage("load the tokenizer"):
            return load_tokenizer(
                options.tokenizer,
                end_of_document=options.end_of_document,
                special_tokens=options.special_tokens,
            )
    log, total = ReadLog(), inventory.size_bytes

    def texts() -> Iterator[str]:
        for document in inventory.documents(options.read, log):
            yield document.text
            progress("read for the tokenizer", log.done, total)
        progress("train the tokenizer", 0, None)

    with clock.stage("train the tokenizer"):
        tokenizer = train_tokenizer(texts(), size, spec=options.tokenizer)
    progress("train the tokenizer", 1, 1)
    if options.special_tokens is not None:
        tokenizer.read_special_tokens(options.special_tokens)
    if options.end_of_document is not None:
        tokenizer.end_of_document = tokenizer.find_token(options.end_of_document)
    return tokenizer


def tokenizer_notes(tokenizer: Tokenizer, options: BuildOptions) -> list[str]:
    """What the user should know of the tokenizer, as sentences."""
    notes = []
    asked, got = parse_vocab_size(options.tokenizer or ""), tokenizer.vocab_size
    if asked is not None and got < asked:
        notes.append(f"the text gave only {got:,} of the {asked:,} tokens asked for; it is small")
    if tokenizer.end_of_document is None:
        notes.append("the tokenizer names no end-of-document token, so none was appended; name it (end_of_document)")
    return notes


def ready_corpus(
    inventory: Inventory,
    out: Path,
    options: BuildOptions,
    clock: StageClock,
    notes: list[str],
    progress: Progress,
) -> tuple[Tokenizer | None, TokenFile, int, int | None]:
    """Ready tokens, checked and split into documents: the tokenizer, the corpus, V, the end token."""
    tokenizer = None
    if options.tokenizer is not None:
        if parse_vocab_size(options.tokenizer) is not None:
            raise TokenizerError(
                f"{options.tokenizer!r} can't be trained on ready tokens; name the tokenizer they are of"
            )
        tokenizer = load_tokenizer(options.tokenizer, special_tokens=options.special_tokens)
    end = _end_of_ready(options, tokenizer)
    limit = options.vocab_size or (max(tokenizer.vocab_size, (end or 0) + 1) if tokenizer else None)
    files = open_ready_sources(
        inventory,
        dtype=options.dtype,
        doc_offsets=options.doc_offsets,
        vocab_size=limit,
        read=options.read,
    )
    notes.extend(_described(files))
    with clock.stage("read the tokens"):
        corpus, largest = join_ready_tokens(
            files,
            vocab_size=limit,
            end_of_document=end,
            folder=out.parent,
            notes=notes,
            progress=progress,
        )
    return tokenizer, corpus, limit or max(largest, end or 0) + 1, end


def _described(files: list[TokenSource]) -> Iterator[str]:
    """What files of tokens were taken for: a sentence for each, or one for all of a kind where they are many."""
    if len(files) <= _MOST_DESCRIBED:
        for file in files:
            size = "" if file.num_tokens is None else f", {file.num_tokens:,} tokens"
            yield f"{Path(str(file.path)).name}: {file.convention}{size}"
        return
    kinds = Counter(file.convention for file in files)
    yield f"{len(files):,} files: " + ", ".join(f"{count:,} × {kind}" for kind, count in kinds.most_common())


def _end_of_ready(options: BuildOptions, tokenizer: Tokenizer | None) -> int | None:
    """The id that ends documents of ready tokens."""
    given = options.end_of_document
    if given is None:
        return tokenizer.end_of_document if tokenizer else None
    if isinstance(given, int) or given.isdecimal():
        end = int(given)
    elif tokenizer is not None:
        end = tokenizer.find_token(given)
    else:
        raise ConfigError(f"end_of_document {given!r} is a name: give the id, or the `tokenizer` that knows it")
    if options.vocab_size is not None and end >= options.vocab_size:
        raise ConfigError(f"end_of_document {end} is outside of the vocab_size of {options.vocab_size}")
    if tokenizer is not None and end < tokenizer.vocab_size:
        tokenizer.end_of_document = end
    return end


def summary_of(
    index: CorpusIndex,
    num_bytes: int,
    inventory: Inventory,
    tokenizer: Tokenizer | None,
    log: ReadLog,
    clock: StageClock,
    notes: list[str],
) -> BuildSummary:
    """The summary of a build that is done."""
    return BuildSummary(
        path=str(index.path),
        tokenizer=tokenizer.spec if tokenizer else None,
        end_of_document=index.end_of_document,
        num_files=len(inventory.sources),
        num_documents=index.num_documents,
        num_tokens=index.num_tokens,
        vocab_size=index.vocab_size,
        num_bytes=num_bytes,
        index_bytes=sum(index.size_bytes.values()),
        stage_s={name: round(seconds, 3) for name, seconds in clock.stage_s.items()},
        total_s=round(clock.total_s, 3),
        compiling_s=round(clock.compiling_s, 3),
        peak_memory_bytes=peak_memory_bytes(),
        skipped_files=dict(inventory.skipped.most_common()),
        num_skipped_documents=log.num_skipped,
        num_replaced_documents=log.num_replaced,
        notes=tuple(notes),
    )
