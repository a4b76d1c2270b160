"""Sources → tokens: ready ones are checked and joined, texts are tokenised; the same for indexes, caches, prompts.

Naively: read all documents, tokenise each, append them to one array. Here the tokens lie in a nameless file that no
exit can leave behind; one file of ready tokens is mapped where it lies.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from corpus_teacher.data.documents import Progress, ReadLog, silent
from corpus_teacher.data.pipeline import TokenFile, tokenize_documents
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.ready_tokens import join_ready_tokens, open_ready_tokens
from corpus_teacher.data.sources import Inventory, find_sources
from corpus_teacher.data.token_rows import open_token_rows, token_field
from corpus_teacher.data.token_streams import TokenSource
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, TokenizerError
from corpus_teacher.storage import place_of


def are_ready(inventory: Inventory, read: ReadOptions | None = None) -> bool:
    """Whether the sources are ready tokens: flat files of them, or rows whose field holds ids (see `token_rows`).

    The first source of a kind speaks for all of its kind.

    Raises
    ------
    ConfigError
        If some are and some aren't.
    """
    kinds: dict[str, bool] = {}
    for source in inventory.sources:
        if source.kind not in kinds:
            kinds[source.kind] = source.kind == "tokens" or token_field(source, read or ReadOptions()) is not None
    ready = [source.name for source in inventory.sources if kinds[source.kind]]
    if ready and len(ready) < len(inventory.sources):
        text = next(source.name for source in inventory.sources if not kinds[source.kind])
        raise ConfigError(f"ready tokens and text don't go together: {ready[0]} holds tokens, {text} holds text")
    return bool(ready)


def open_ready_sources(
    inventory: Inventory,
    *,
    dtype: str = "auto",
    doc_offsets: Path | None = None,
    vocab_size: int | None = None,
    read: ReadOptions | None = None,
) -> list[TokenSource]:
    """Map the files of ready tokens, and open the rows of others; see `open_ready_tokens` and `open_token_rows`.

    Raises
    ------
    ConfigError, InputError
    """
    if doc_offsets is not None and len(inventory.sources) > 1:
        raise ConfigError(f"doc_offsets fits one file of tokens, there are {len(inventory.sources)}")
    options, fields = read or ReadOptions(), dict[str, str]()
    found: list[TokenSource] = []
    for source in inventory.sources:
        if source.kind == "tokens":
            path = place_of(source.name)
            found.append(open_ready_tokens(path, dtype=dtype, doc_offsets=doc_offsets, vocab_size=vocab_size))
            continue
        if doc_offsets is not None:
            raise ConfigError(f"doc_offsets fits a flat file of tokens; of {source.name} each row is a document")
        if source.kind not in fields:
            fields[source.kind] = token_field(source, options) or options.text_field
        found.append(open_token_rows(source, fields[source.kind], options, dtype=dtype))
    return found


def read_tokens(
    specs: list[str] | Inventory,
    tokenizer: Tokenizer | None,
    *,
    vocab_size: int,
    end_of_document: int | None,
    read: ReadOptions | None = None,
    dtype: str = "auto",
    without_tokenizer: str,
    progress: Progress = silent,
) -> tuple[TokenFile, bool]:
    """The tokens of sources and where their documents begin, and whether they were ready.

    Parameters
    ----------
    specs : list of str or Inventory
        See `find_sources`.
    tokenizer : Tokenizer, optional
        What text is tokenised with; text needs it.
    vocab_size : int
        V; ready tokens outside of it are refused.
    end_of_document : int, optional
        What splits ready tokens into documents.
    read, dtype : optional
        How text is read, and the integers of raw .bin files.
    without_tokenizer : str
        What to say where there is text and no tokenizer.

    Raises
    ------
    InputError, TokenizerError, CorpusError, ConfigError
    """
    inventory = specs if isinstance(specs, Inventory) else find_sources(specs)
    folder = Path(tempfile.gettempdir())
    if are_ready(inventory, read):
        files = open_ready_sources(inventory, dtype=dtype, vocab_size=vocab_size, read=read)
        corpus, _ = join_ready_tokens(
            files, vocab_size=vocab_size, end_of_document=end_of_document, folder=folder, notes=[], progress=progress
        )
        return corpus, True
    if tokenizer is None:
        raise TokenizerError(without_tokenizer)
    log = ReadLog()
    documents = inventory.documents(read or ReadOptions(), log)
    corpus = tokenize_documents(
        documents, tokenizer, folder=folder, progress=progress, log=log, total=inventory.size_bytes
    )
    return corpus, False
