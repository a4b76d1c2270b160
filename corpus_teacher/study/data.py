"""The text of a study, made once: documents split, a tokenizer, indexes, held-out documents; and their checks.

Naively: hash every document's text; the hash decides whether it is trained on, tuned on or held out, and in which order
documents are read. Every index holds the first documents of that order, so an index is the beginning of each larger one
(positions in the one are positions in the other). Held-out documents that overlap with the largest index are dropped.
The folder appears, whole, at the end, and is named by what it was made of: a study that is started again finds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data import (
    Document,
    Progress,
    TokenFile,
    Tokenizer,
    build_token_index,
    load_tokenizer,
    tokenize_documents,
    train_tokenizer,
)
from corpus_teacher.data.documents import ReadLog, silent
from corpus_teacher.data.held_out import HeldOut
from corpus_teacher.data.opening import open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.tokenizers import parse_vocab_size
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import new_folder, write_array, write_json
from corpus_teacher.standard_library import read_standard_library
from corpus_teacher.study.leaks import label_invariance, overlap_shares
from corpus_teacher.study.plans import DataPlan
from corpus_teacher.study.settings import IN_DOMAIN, TUNE, Study

MAKING = ".making-"
"""Of the names of folders in data/ that aren't whole yet."""

MANIFEST = "data.json"
_FORMAT = 4
_TOKENIZER_BYTES = 50_000_000  # more text hardly changes a small vocabulary
_BUCKETS = 1 << 32
_SPACE, _VARIABLE = re.compile(r"\s+"), re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_SAMPLED = 64  # documents that say how many tokens a document has


@dataclass(frozen=True)
class StudyData:
    """What was made.

    Parameters
    ----------
    folder : Path
        index-NAME for each index; DOMAIN.npy, DOMAIN.starts.npy and DOMAIN.bytes.npy for each domain: tokens, where the
        documents begin (D + 1), UTF-8 bytes of each (D).
    manifest : dict
        Its fingerprint, sizes and checks.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def checks(self) -> dict[str, Any]:
        """What every row tells of the leaks that were looked for."""
        return dict(self.manifest["checks"])

    def held_out(self, domain: str) -> tuple[HeldOut, npt.NDArray[np.int64]]:
        """A domain's documents, and the bytes of each."""
        tokens, starts, size = (np.load(self.folder / f"{domain}{part}.npy") for part in ("", ".starts", ".bytes"))
        return HeldOut(TokenFile(tokens, starts, int(size.sum())), self.manifest["end_of_document"]), size


def study_data(study: Study, out: Path, progress: Progress = silent) -> StudyData:
    """Find the data of a study under its folder, or make it.

    Raises
    ------
    InputError, TokenizerError, OutputError
        Sources, tokenizers and folders that can't be used.
    ConfigError
        Fewer tokens than an index asks for, or no document left to hold out.
    """
    plan = study.data
    texts = {name: list(_read(specs, plan, progress)) for name, specs in study.domains.items()}
    documents = list(_read(plan.sources, plan, progress))
    hashes = {name: _hash(found) for name, found in {IN_DOMAIN: documents, **texts}.items()}
    fingerprint = _fingerprint(plan, study.domains, json.dumps(hashes))
    folder = out / "data" / fingerprint[:12]
    if (folder / MANIFEST).is_file():
        return StudyData(folder, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    with new_folder(folder, MAKING) as scratch:
        manifest = _make(plan, documents, texts, scratch, progress) | {"text_sha256": hashes}
        manifest["fingerprint"] = fingerprint
        write_json(scratch / MANIFEST, manifest)
    return StudyData(folder, manifest)


def _make(
    plan: DataPlan,
    documents: list[Document],
    others: dict[str, list[Document]],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Everything, into an empty folder."""
    train, tune, held_out = split_documents(documents, plan.held_out_share, plan.tune_share)
    tokenizer = _tokenizer(plan, train)
    if tokenizer.end_of_document is None:
        raise ConfigError(f"data.tokenizer {plan.tokenizer!r} names no end of a document: choose another one")
    if plan.piece_characters is not None:
        train = sorted(cut_in_pieces(train, plan.piece_characters), key=_key)
    whole = _tokenized(train, tokenizer, list(plan.indexes.values()), folder, progress)
    sizes = {name: _cut(whole, size, name) for name, size in plan.indexes.items()}
    for name, stop in sizes.items():
        part = TokenFile(whole.tokens[: whole.doc_starts[stop]], whole.doc_starts[: stop + 1], 0)
        built = build_token_index(
            part,
            tokenizer,
            folder / f"index-{name}",
            sources=plan.sources,
            progress=lambda stage, share: progress(f"build: {stage}", share, 1.0),
        )
        built.close()
    largest = max(sizes, key=lambda name: sizes[name])
    described: dict[str, Any] = {}
    texts = {IN_DOMAIN: held_out, TUNE: tune}
    for name, found in others.items():
        texts[name] = [document for document in found if document.text.strip()]
    if plan.held_out_characters is not None:
        texts = {name: [middle(one, plan.held_out_characters) for one in found] for name, found in texts.items()}
    with open_index(folder / f"index-{largest}") as index:
        for name, found in texts.items():
            limit = plan.tune_tokens if name == TUNE else plan.held_out_tokens
            described[name] = _write_domain(name, found, tokenizer, index, plan.max_overlap, limit, folder)
        smallest = min(sizes, key=lambda name: sizes[name])
    with open_index(folder / f"index-{smallest}") as index:
        checked = label_invariance(index, folder)
        of_document = label_invariance(index, folder, leave_out="document")
    told = described[IN_DOMAIN]
    return {
        "format": _FORMAT,
        "plan": asdict(plan),
        "vocab_size": tokenizer.vocab_size,
        "end_of_document": tokenizer.end_of_document,
        "tokenizer": tokenizer.fingerprint,
        "indexes": {name: int(whole.doc_starts[stop]) for name, stop in sizes.items()},
        "documents": {"train": len(train), "tune": len(tune), "held_out": len(held_out)},
        "domains": described,
        "checks": {
            "overlap_13gram": told["with_overlap"],
            "overlap_13gram_mean_share": told["mean_overlap"],
            "dropped_for_overlap": told["dropped"],
            "max_overlap": plan.max_overlap,
            "leave_out_label_invariance": checked["ok"],
            "leave_out_largest_difference": checked["largest_difference"],
            "leave_out_largest_difference_as_taught": checked["largest_difference_as_taught"],
            "leave_out_document_largest_difference": of_document["largest_difference"],
        },
    }


def split_documents(
    documents: Iterable[Document], held_out_share: float, tune_share: float
) -> tuple[list[Document], list[Document], list[Document]]:
    """Training, tuning and held-out documents, each text once, in an order that only the texts decide.

    Raises
    ------
    ConfigError
        One of the three is empty.
    """
    keyed = {hashlib.sha256(document.text.encode()).digest(): document for document in documents}
    parts: tuple[list[Document], list[Document], list[Document]] = ([], [], [])
    for key in sorted(keyed):
        # the first bytes order the documents, others split them: the two mustn't depend on each other
        place = int.from_bytes(key[16:20], "big") / _BUCKETS
        part = 2 if place < held_out_share else 1 if place < held_out_share + tune_share else 0
        parts[part].append(keyed[key])
    for name, part_ in zip(("to train on", "to tune on", "to hold out"), parts, strict=True):
        if not part_:
            raise ConfigError(f"of {len(keyed)} documents none is left {name}: give more documents, or another share")
    return parts


def _write_domain(
    name: str, documents: list[Document], tokenizer: Tokenizer, index: Any, max_overlap: float, limit: int, folder: Path
) -> dict[str, Any]:
    """Tokenise a domain's documents, drop what overlaps with the index, write the rest; and tell what that was."""
    corpus = tokenize_documents(documents, tokenizer, folder=folder)
    if corpus.num_documents != len(documents):
        raise InputError(f"a document of {name!r} holds the token that ends documents: choose another tokenizer")
    shares = overlap_shares(index, corpus.tokens, corpus.doc_starts)
    fine = np.flatnonzero(shares <= max_overlap)
    lengths = np.diff(corpus.doc_starts)
    fine = fine[np.cumsum(lengths[fine]) - lengths[fine] < limit]
    if not len(fine):
        raise ConfigError(
            f"no document of {name!r} overlaps with the index as little as max_overlap = {max_overlap} asks for"
        )
    starts = np.concatenate([[0], np.cumsum(lengths[fine])])
    spans = zip(corpus.doc_starts[fine].tolist(), corpus.doc_starts[fine + 1].tolist(), strict=True)
    write_array(folder / f"{name}.npy", np.concatenate([corpus.tokens[begin:end] for begin, end in spans]))
    write_array(folder / f"{name}.starts.npy", starts)
    write_array(folder / f"{name}.bytes.npy", np.array([len(documents[number].text.encode()) for number in fine]))
    return {
        "documents": len(fine),
        "tokens": int(starts[-1]),
        "dropped": int((shares > max_overlap).sum()),
        "with_overlap": float((shares[fine] > 0).mean()),
        "mean_overlap": float(shares[fine].mean()),
    }


def _read(specs: tuple[str, ...], plan: DataPlan, progress: Progress) -> Iterator[Document]:
    """Whole documents of all sources, at most about `max_bytes`."""
    size = 0
    for document in _documents(specs, ReadOptions(text_field=plan.text_field, unpack_ratio=plan.unpack_ratio)):
        size += len(document.text.encode())
        progress("read the documents", size, plan.max_bytes)
        yield document
        if plan.max_bytes is not None and size >= plan.max_bytes:
            return


def _documents(specs: tuple[str, ...], read: ReadOptions) -> Iterator[Document]:
    others = [_with_folders(spec) for spec in specs if spec.partition(":")[0] != "stdlib"]
    for spec in specs:
        if spec.partition(":")[0] != "stdlib":
            continue
        if spec not in ("stdlib", "stdlib:code", "stdlib:help"):
            raise InputError(
                f"{spec!r} is no part of the standard library: give 'stdlib', 'stdlib:code' or 'stdlib:help'"
            )
        for document in read_standard_library():
            is_help = document.origin.startswith("help/")
            if spec == "stdlib" or is_help == (spec == "stdlib:help"):
                yield document
    if others:
        parts: list[str] = []
        for document in find_sources(others).documents(read, ReadLog()):
            parts.append(document.text)
            if document.ends:
                yield Document("".join(parts), document.origin)
                parts = []


def _with_folders(spec: str) -> str:
    """A source with the folders that variables of the environment stand for."""

    def folder(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise InputError(
                f"the source {spec!r} names the variable {name}, which is not set: set it to the folder of the data"
            )
        return os.environ[name]

    return _VARIABLE.sub(folder, spec)


def _tokenizer(plan: DataPlan, train: list[Document]) -> Tokenizer:
    vocab_size = parse_vocab_size(plan.tokenizer)
    if vocab_size is None:
        return load_tokenizer(plan.tokenizer)

    def texts() -> Iterator[str]:
        size = 0
        for document in train:
            yield document.text
            size += len(document.text)
            if size > _TOKENIZER_BYTES:
                return

    return train_tokenizer(texts(), vocab_size, spec=plan.tokenizer)


def _tokenized(
    train: list[Document], tokenizer: Tokenizer, sizes: list[Any], folder: Path, progress: Progress
) -> TokenFile:
    """The first documents, as many as the largest index needs, and a few more."""
    needed = len(train)
    if "all" not in sizes:
        some = tokenize_documents(train[:_SAMPLED], tokenizer, folder=folder)
        per_document = max(1.0, len(some.tokens) / some.num_documents)
        needed = int(1.1 * max(sizes) / per_document) + _SAMPLED
    while True:
        whole = tokenize_documents(train[:needed], tokenizer, folder=folder, progress=progress, total=None)
        if needed >= len(train) or len(whole.tokens) >= max(sizes):
            return whole
        needed *= 2


def _cut(whole: TokenFile, size: int | str, name: str) -> int:
    """How many documents an index of so many tokens has."""
    if size == "all":
        return whole.num_documents
    if not isinstance(size, int) or size > len(whole.tokens):
        raise ConfigError(f"data.indexes.{name} is {size}, and there are only {len(whole.tokens):,} tokens to train on")
    return int(np.searchsorted(whole.doc_starts, size))


def _fingerprint(plan: DataPlan, domains: dict[str, tuple[str, ...]], texts: str) -> str:
    """What the data depend on: settings, and the texts themselves."""
    settings = {name: value for name, value in asdict(plan).items() if name != "unpack_ratio"}  # changes no text
    said = json.dumps([_FORMAT, settings, domains, texts], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _hash(documents: Iterable[Document]) -> str:
    """Of the texts, whatever files they came from."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(hashlib.sha256(document.text.encode()).digest())
    return digest.hexdigest()


def cut_in_pieces(documents: Iterable[Document], length: int) -> Iterator[Document]:
    """Each document as consecutive ones of about `length` characters, cut behind white space; nothing is lost.

    >>> [piece.text for piece in cut_in_pieces([Document("ab cd ef", "x")], 4)]
    ['ab cd ', 'ef']
    """
    for document in documents:
        text, begin = document.text, 0
        while begin < len(text):
            found = _SPACE.search(text, min(begin + length, len(text)))
            end = found.end() if found else len(text)
            yield Document(text[begin:end], document.origin)
            begin = end


def middle(document: Document, length: int) -> Document:
    """The middle piece of a document that is cut into pieces of about `length` characters.

    >>> middle(Document("ab cd ef gh", "x"), 3).text
    'cd '
    """
    pieces = list(cut_in_pieces([document], length)) or [document]
    return pieces[(len(pieces) - 1) // 2]


def _key(document: Document) -> bytes:
    return hashlib.sha256(document.text.encode()).digest()
