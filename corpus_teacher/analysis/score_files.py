"""`corpus-teacher teacher score`: the scores of all documents of some sources, in one Parquet file.

Documents are read as a stream, in parts of about a megabyte; threads tokenise and score them; each part becomes a file
of its own, whole or not there, in a folder beside the result. A run that was ended goes on from the parts that there
are. In the end they are joined, with their buckets, and the folder goes.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from corpus_index import CorpusIndex, Estimator, EstimatorLike, ShardedIndex, working_s
from corpus_index.targets.scorer import is_ngram_model

from corpus_teacher.analysis.scoring import (
    BUCKETS,
    ESTIMATOR,
    MAX_ORDER,
    DocumentScorer,
    Thresholds,
    fit_thresholds,
    score_columns,
)
from corpus_teacher.data.documents import Progress, ReadLog, silent
from corpus_teacher.data.memory import free_memory_bytes
from corpus_teacher.data.opening import open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import Inventory, find_sources
from corpus_teacher.data.tokens import are_ready, read_tokens
from corpus_teacher.errors import ConfigError, InputError, OutputError
from corpus_teacher.files import held_folder, read_json, whole_file, write_json
from corpus_teacher.provenance import available_cores

_PART_CHARS = 1 << 20
_PART_TOKENS = 1 << 18
_SETTINGS = "settings.json"
_TABLES_PAY = 4  # tokens of the corpus for each one to be scored; one thread makes the tables, all score
_TABLE_BYTES = 21  # of tables for each token of the corpus, and while they are made
_BYTES_PER_TOKEN = 4  # of text
_SCHEMA = pa.schema([
    ("name", pa.string()),
    ("tokens", pa.int64()),
    ("bytes", pa.int64()),
    ("nats", pa.float64()),
    ("nats_per_token", pa.float64()),
    ("bits_per_byte", pa.float64()),
])  # fmt: skip


@dataclass(frozen=True)
class ScoreSummary:
    """What `corpus-teacher teacher score` tells.

    Parameters
    ----------
    path : str
        Of the Parquet file: name, tokens, bytes, nats, nats_per_token, bits_per_byte, bucket.
    documents, tokens : int
    new_documents : int
        Those that this run scored; an earlier one did the others.
    nats_per_token : float
        Of all tokens.
    bits_per_byte : float, optional
    thresholds : Thresholds
        Nats per token where middle and tail begin.
    buckets : dict of str to int
        Documents in each.
    estimator : str
    tables : bool
        Whether a table of all n-grams was made for it.
    seconds, tokens_per_s : float
        Of this run, and its rate, tokenising and tables included.
    """

    path: str
    documents: int
    tokens: int
    new_documents: int
    nats_per_token: float
    bits_per_byte: float | None
    thresholds: Thresholds
    buckets: dict[str, int]
    estimator: str
    tables: bool
    seconds: float
    tokens_per_s: float


@dataclass(frozen=True)
class _Part:
    """Some documents: their names and either their texts or their tokens."""

    number: int
    names: list[str]
    texts: list[str]
    tokens: list[npt.NDArray[np.integer]]


def score_documents(
    path: str | Path,
    sources: Sequence[str],
    out: str | Path,
    *,
    estimator: EstimatorLike = ESTIMATOR,
    max_order: int | None = MAX_ORDER,
    thresholds: Sequence[float] | None = None,
    read: ReadOptions | None = None,
    dtype: str = "auto",
    tokenizer: str | None = None,
    tables: bool | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ScoreSummary:
    """Score all documents of some sources into a Parquet file.

    Parameters
    ----------
    path : str or Path
        Of the index.
    sources : sequence of str
        Text or ready tokens; see `find_sources`.
    out : str or Path
        The file; `out.parts` beside it holds what is done meanwhile, and a run of the same settings goes on from it.
    estimator, max_order
        See `DocumentScorer`.
    thresholds : pair of float, optional
        Nats per token where middle and tail begin; by default such that the buckets are of even size.
    read, dtype, tokenizer
        How sources are read.
    tables : bool, optional
        See `DocumentScorer`; by default where the sources hold at least a quarter as many tokens as the corpus, and
        memory has room. A run goes on as it began.
    workers : int, optional
        Threads; the file is the same for any number.
    overwrite : bool
        Replace a file that stands there, and what an earlier run of other settings left.

    Raises
    ------
    IndexFormatError, InputError, TokenizerError, ConfigError
    OutputError
        A file that stands there, parts of other settings, or no space.
    FolderInUseError

    Notes
    -----
    Memory holds a few parts, and the longest document.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise OutputError(f"{out} is there already: ask to overwrite it, or name another file")
    given = None if thresholds is None else _pair(thresholds)
    folder = out.with_name(f"{out.name}.parts")
    begin = working_s()
    with open_index(path) as index:
        inventory = find_sources(list(sources))
        fitted = index.fitted(estimator, max_order)
        if tables is None:
            tables = _tables_pay(index, fitted, inventory, are_ready(inventory, read or ReadOptions()), folder)
        scorer = DocumentScorer(index, estimator=fitted, tokenizer=tokenizer, tables=tables)
        settings = {
            "index": index.fingerprint,
            "estimator": scorer.estimator.name,
            "max_order": scorer.estimator.max_order,
            **({"tables": True} if tables else {}),
            "sources": [[source.name, source.size_bytes] for source in inventory.sources],
            "text_field": (read or ReadOptions()).text_field,
        }
        with held_folder(folder, "being filled with scores"):
            _check_settings(folder, settings, overwrite)
            scored = _fill(folder, scorer, inventory, read, dtype, workers or available_cores(), progress)
            summary = _join(folder, out, scorer.estimator.name, given)
    shutil.rmtree(folder, ignore_errors=True)
    seconds = working_s() - begin
    return ScoreSummary(
        **summary,
        tables=tables,
        new_documents=scored[0],
        seconds=seconds,
        tokens_per_s=scored[1] / max(seconds, 1e-9),
    )


def _tables_pay(index: CorpusIndex, estimator: Estimator, inventory: Inventory, ready: bool, folder: Path) -> bool:
    """Whether a table of all n-grams is made first: as an earlier run of the same folder did, or by sizes."""
    if isinstance(index, ShardedIndex) or not (is_ngram_model(estimator) and estimator.max_order):
        return False
    with suppress(OSError, ValueError, AttributeError):
        return bool(read_json(folder / _SETTINGS).get("tables", False))
    tokens = (inventory.size_bytes or 0) / (_BYTES_PER_TOKEN if not ready else 2 if index.vocab_size <= 2**16 else 4)
    fits = 2 * _TABLE_BYTES * index.num_tokens <= free_memory_bytes()
    return fits and _TABLES_PAY * tokens >= index.num_tokens


def _pair(thresholds: Sequence[float]) -> Thresholds:
    if len(thresholds) != 2:
        raise ConfigError(f"there are {len(thresholds)} thresholds: give two, where middle and tail begin")
    return Thresholds(*map(float, thresholds))


def _check_settings(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Begin, or go on with what is of the same settings."""
    place = folder / _SETTINGS
    if place.exists():
        try:
            same = read_json(place) == settings
        except (OSError, ValueError):
            same = False
        if same:
            return
        if not overwrite:
            raise OutputError(
                f"{folder} holds scores of another index, estimator or sources: ask to overwrite it, or name another "
                "file"
            )
    for part in folder.glob("part-*.parquet"):
        part.unlink()
    write_json(place, settings)


def _fill(
    folder: Path,
    scorer: DocumentScorer,
    inventory: Inventory,
    read: ReadOptions | None,
    dtype: str,
    workers: int,
    progress: Progress,
) -> tuple[int, int]:
    """Score the parts that aren't there yet; how many documents and tokens those had."""
    log = ReadLog()
    documents = tokens = 0
    waiting: deque[Future[tuple[int, int]]] = deque()

    def finish_one() -> None:
        nonlocal documents, tokens
        some = waiting.popleft().result()
        documents, tokens = documents + some[0], tokens + some[1]
        progress("score", log.done or documents, inventory.size_bytes, tokens)

    with ThreadPoolExecutor(workers, thread_name_prefix="score") as pool:
        try:
            for part in _parts(scorer, inventory, read or ReadOptions(), dtype, log):
                if (place := _place(folder, part.number)).exists():
                    continue
                waiting.append(pool.submit(_score, part, scorer, place))
                while len(waiting) > 2 * workers:
                    finish_one()
            while waiting:
                finish_one()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return documents, tokens


def _place(folder: Path, number: int) -> Path:
    return folder / f"part-{number:08d}.parquet"


def _parts(
    scorer: DocumentScorer, inventory: Inventory, read: ReadOptions, dtype: str, log: ReadLog
) -> Iterator[_Part]:
    """The documents in parts, always the same ones."""
    if are_ready(inventory, read):
        corpus, _ = read_tokens(
            inventory,
            scorer.tokenizer,
            vocab_size=scorer.index.vocab_size,
            end_of_document=scorer.index.end_of_document,
            dtype=dtype,
            read=read,
            without_tokenizer="",
        )
        starts, first, number = corpus.doc_starts, 0, 0
        while first < corpus.num_documents:
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + _PART_TOKENS, side="right")) - 1)
            ids = [corpus.tokens[starts[one] : starts[one + 1]] for one in range(first, last)]
            log.done = (inventory.size_bytes or 0) * int(starts[last]) // max(1, int(starts[-1]))
            yield _Part(number, [f"document {one + 1}" for one in range(first, last)], [], ids)
            first, number = last, number + 1
        return
    names: list[str] = []
    texts: list[str] = []
    size = number = 0
    begun: list[str] = []
    for document in inventory.documents(read, log):
        begun.append(document.text)
        if not document.ends:
            continue
        texts.append("".join(begun))
        names.append(document.name or document.origin)
        size += len(texts[-1])
        begun = []
        if size >= _PART_CHARS:
            yield _Part(number, names, texts, [])
            names, texts, size, number = [], [], 0, number + 1
    if texts:
        yield _Part(number, names, texts, [])


def _score(part: _Part, scorer: DocumentScorer, place: Path) -> tuple[int, int]:
    """Score a part and write it, whole or not at all; its documents and tokens."""
    if part.texts:
        nats, tokens, num_bytes = scorer.score_texts(part.texts)
    else:
        nats, tokens = scorer.score_tokens(part.tokens)
        num_bytes = np.zeros(len(part.tokens), np.int64)
    columns = score_columns(nats, tokens, num_bytes, None)
    table = pa.table(
        {"name": part.names, "bytes": num_bytes.tolist(), "nats": nats.tolist(), **columns},
    ).select(_SCHEMA.names)
    with whole_file(place) as file:
        pq.write_table(table.cast(_SCHEMA), file)
    return len(part.names), int(tokens.sum())


def _join(folder: Path, out: Path, estimator: str, thresholds: Thresholds | None) -> dict[str, Any]:
    """Join the parts into one file, with their buckets."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise InputError("the sources hold no document: there is nothing to score")
    sums, every = np.zeros(3), []
    for part in parts:
        table = pq.read_table(part, columns=["nats", "tokens", "bytes", "nats_per_token"])
        sums += [float(np.sum(table[name].to_numpy())) for name in ("nats", "tokens", "bytes")]
        every.append(table["nats_per_token"].to_numpy())
    per_token = np.concatenate(every).astype(np.float64)
    made = thresholds or fit_thresholds(per_token)
    counts = dict.fromkeys(BUCKETS, 0)
    schema = _SCHEMA.append(pa.field("bucket", pa.string()))
    with whole_file(out) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part)
            buckets = [made.bucket(one) for one in table["nats_per_token"].to_numpy().astype(np.float64).tolist()]
            for name in buckets:
                counts[name] += 1
            writer.write_table(table.append_column("bucket", pa.array(buckets, pa.string())))
    return {
        "path": str(out),
        "documents": int(per_token.size),
        "tokens": int(sums[1]),
        "nats_per_token": float(sums[0] / max(1.0, sums[1])),
        "bits_per_byte": float(sums[0] / np.log(2) / sums[2]) if sums[2] else None,
        "thresholds": made,
        "buckets": counts,
        "estimator": estimator,
    }
