"""Files, data sets and tokenizers → corpora, indexes and (B, T) batches; never imports torch."""

from __future__ import annotations

from corpus_teacher.data.build import (
    BuildOptions,
    BuildSummary,
    build_index_from_sources,
    peak_memory_bytes,
)
from corpus_teacher.data.documents import Document, Progress, ReadLog
from corpus_teacher.data.indexing import build_index_from_documents, build_token_index
from corpus_teacher.data.pipeline import TokenFile, TokenWriter, available_cores, tokenize_documents
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import ByteTokenizer, Tokenizer, train_tokenizer
from corpus_teacher.data.windows import TokenWindows

__all__ = [
    "BuildOptions",
    "BuildSummary",
    "ByteTokenizer",
    "Document",
    "Progress",
    "ReadLog",
    "TokenFile",
    "TokenWindows",
    "TokenWriter",
    "Tokenizer",
    "available_cores",
    "build_index_from_documents",
    "build_index_from_sources",
    "build_token_index",
    "load_tokenizer",
    "peak_memory_bytes",
    "tokenize_documents",
    "train_tokenizer",
]
