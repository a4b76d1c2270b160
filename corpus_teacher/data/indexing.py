"""A corpus in memory or in a map → an index that carries its tokenizer and its story."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from corpus_index import CorpusIndex, build_index

import corpus_teacher
from corpus_teacher.data.documents import Document
from corpus_teacher.data.pipeline import TokenFile, tokenize_documents
from corpus_teacher.data.tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
"""The name of the tokenizer inside an index."""


def build_token_index(
    corpus: TokenFile,
    tokenizer: Tokenizer | None,
    out: str | Path,
    *,
    sources: Sequence[str] = (),
    num_files: int | None = None,
    vocab_size: int | None = None,
    end_of_document: int | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[[str, float], None] | None = None,
    shard_tokens: int | None = None,
    layout: str = "full",
    memory: int | None = None,
) -> CorpusIndex:
    """Build the index of a tokenised corpus, its tokenizer and its story inside.

    Parameters
    ----------
    corpus : TokenFile
    tokenizer : Tokenizer, optional
        Kept in the index; its vocabulary and end of a document are the index's unless they are given.
    out : str or Path
        The folder.
    sources : sequence of str, num_files : int, optional
        Where the corpus comes from, for the metadata.
    overwrite : bool
        Replace an index that stands there.
    progress : callable, optional
        Called with a stage of the building and the share of it that is done, 0 to 1.
    shard_tokens : int, optional
        Cut a larger corpus into shards of at most that many tokens.
    layout : {"full", "compact"}
        See `corpus_index.build_index`.
    memory : int, optional
        As in `corpus_index.build_index`.

    Raises
    ------
    CorpusError, InsufficientMemoryError, IndexExistsError, IndexWriteError
        See `corpus_index.build_index`.
    """
    metadata = index_metadata(tokenizer, sources, num_files, corpus.num_bytes)
    if tokenizer is not None:
        vocab_size = vocab_size or tokenizer.vocab_size
        end_of_document = tokenizer.end_of_document if end_of_document is None else end_of_document
    return build_index(
        corpus.tokens,
        out,
        doc_starts=corpus.doc_starts,
        vocab_size=vocab_size,
        end_of_document=end_of_document,
        metadata=metadata,
        document_names=corpus.names,
        attachments={TOKENIZER_FILE: tokenizer.to_bytes()} if tokenizer else None,
        overwrite=overwrite,
        workers=workers,
        progress=progress or False,
        shard_tokens=shard_tokens,
        layout=layout,
        memory=memory,
    )


def index_metadata(
    tokenizer: Tokenizer | None, sources: Sequence[str], num_files: int | None, num_bytes: int
) -> dict[str, Any]:
    """What an index says of how it was made."""
    return {
        "tokenizer": _described(tokenizer),
        "sources": list(sources),
        "num_files": num_files,
        "num_bytes": num_bytes,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "corpus_teacher": corpus_teacher.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
        },
    }


def build_index_from_documents(
    documents: Iterable[Document | str],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    name: str,
    overwrite: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> CorpusIndex:
    """Tokenise documents that a program holds, and index them.

    Parameters
    ----------
    documents : iterable of Document or str
        The corpus.
    tokenizer : Tokenizer
        It goes into the index.
    out : str or Path
        The folder of the index; it appears when it is complete.
    name : str
        What the metadata call the source.
    overwrite : bool
        Replace an index that stands there.
    progress : callable, optional
        Called with a stage of the building and the share of it that is done, 0 to 1.

    Raises
    ------
    CorpusError, IndexExistsError, IndexWriteError, OutputError
        As `build_token_index` and `tokenize_documents`.
    """
    out = Path(out)
    named = (
        replace(document, origin=document.origin or f"{name}, document {number}")
        if isinstance(document, Document)
        else Document(document, f"{name}, document {number}")
        for number, document in enumerate(documents, start=1)
    )
    corpus = tokenize_documents(named, tokenizer, folder=out.parent, keep_names=True)
    return build_token_index(corpus, tokenizer, out, sources=[name], overwrite=overwrite, progress=progress)


def _described(tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    """What the metadata of an index say about its tokenizer."""
    if tokenizer is None:
        return None
    return {
        "spec": tokenizer.spec,
        "fingerprint": tokenizer.fingerprint,
        "file": TOKENIZER_FILE,
        "special_tokens": tokenizer.special_tokens,
    }
