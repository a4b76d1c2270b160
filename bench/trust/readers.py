"""Every reader of files, ready to be fuzzed: small valid samples, and what reads them to the end."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zstandard
from corpus_index import CorpusIndex, build_index, load_estimator, make_estimator, open_index, verify_index
from corpus_index.manifest import MANIFEST, seal
from corpus_index.names import DocumentNames, numbered_names, pack_names

from bench.trust.flips import small_corpus
from bench.trust.inputs import Input, Reader
from bench.trust.requests import REQUESTS
from bench.trust.shard_readers import SHARDS
from corpus_teacher.blend import make_policy
from corpus_teacher.data.benchmarks import read_benchmark
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.ready_tokens import join_ready_tokens, open_ready_tokens
from corpus_teacher.data.records import ReadOptions
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.demonstrations import DemonstrationDataset
from corpus_teacher.errors import InputError
from corpus_teacher.neural import CachedTeacher
from corpus_teacher.neural.distillkit import read_distillkit, to_distillkit
from corpus_teacher.neural.distillkit_format import ColumnFormat
from corpus_teacher.neural.formats import SparseRows
from corpus_teacher.neural.importing import import_rows
from corpus_teacher.neural.megatron import read_megatron
from corpus_teacher.study.costs import read_costs
from corpus_teacher.study.reading import read_study
from corpus_teacher.study.report.results import read_results
from corpus_teacher.study.row_file import PACKED_FILE, ROWS_FILE
from corpus_teacher.training.checkpoints import newest_whole
from corpus_teacher.training.checkpoints import seal as seal_checkpoint
from corpus_teacher.training.settings import read_run

_ROOT = Path(__file__).parents[2]
_VOCAB = 1_000


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _sealed_by(key: str, make_seal: Callable[[dict[str, Any]], str]) -> Callable[[bytes], bytes]:
    """What seals a manifest anew, which anyone can who wants to lie."""

    def finish(content: bytes) -> bytes:
        value = json.loads(content)
        return _dump({**value, key: make_seal(value)}) if isinstance(value, dict) else content

    return finish


def _quiet_folder(folder: Path) -> None:
    """Stamps of what was checked go into the folder too."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")


# the index


def _index(folder: Path) -> Input:
    _quiet_folder(folder)
    path = folder / "index"
    corpus = small_corpus(1, wide=False)
    tokens = corpus["tokens"][: corpus["doc_starts"][3]]
    build_index(tokens, path, doc_starts=corpus["doc_starts"][:4], vocab_size=_VOCAB, end_of_document=0,
                document_names=["a", "b", "c"], attachments={"note.txt": b"a note"}).close()  # fmt: skip
    row = tokens[:24].astype(np.int64)

    def read(content: bytes) -> None:
        (path / MANIFEST).write_bytes(content)
        with CorpusIndex.open(path, check="never") as index:
            index.next_tokens(row[:3])
            index.match(row[None])
            index.smoothed_targets(row[None], max_order=3)
            for name in index._manifest["attachments"]:
                bytes(index.attachment(name))
            index.documents_of(row[:2], limit=3)
            repr(index)
        open_index(path).close()
        verify_index(path)

    return Input([(path / MANIFEST).read_bytes()], read, _sealed_by("fingerprint", seal), "json")


def _shards(folder: Path) -> Input:
    _quiet_folder(folder)
    path = folder / "index"
    corpus = small_corpus(1, wide=False)
    starts = corpus["doc_starts"][:7]
    tokens = corpus["tokens"][: starts[-1]]
    build_index(tokens, path, doc_starts=starts, vocab_size=_VOCAB, end_of_document=0, shard_tokens=1_000).close()
    row = tokens[:24].astype(np.int64)

    def read(content: bytes) -> None:
        (path / MANIFEST).write_bytes(content)
        with open_index(path, check="never") as index:
            index.next_tokens(row[:3])
            index.smoothed_targets(row[None], max_order=3)
            index.document(index.num_documents - 1)
            repr(index)

    return Input([(path / MANIFEST).read_bytes()], read, _sealed_by("fingerprint", seal), "json")


def _names(folder: Path) -> Input:
    named = bytes(pack_names([f"file-{number}.txt" for number in range(70)]))
    ruled = numbered_names([(3, "a.bin, document "), (4, "b.bin, document ")])

    def read(content: bytes) -> None:
        names = DocumentNames(content)
        for number in {0, 1, len(names) // 2, len(names) - 1, *range(min(len(names), 80))}:
            if 0 <= number < len(names):
                names[number]
        names.rules_between(0, len(names))

    return Input([named, ruled], read)


def _estimator(folder: Path) -> Input:
    corpus = small_corpus(1, wide=False)
    starts = corpus["doc_starts"][:4]
    tokens = corpus["tokens"][: starts[-1]]
    index = build_index(tokens, folder / "index", doc_starts=starts, vocab_size=_VOCAB, end_of_document=0)
    path, samples = folder / "estimator.json", []
    for name in (
        "witten-bell",
        "modified-kneser-ney",
        "jelinek-mercer",
        "katz",
        "auto",
        "pitman-yor",
        "dirichlet",
        "add-k",
    ):
        make_estimator(name, max_order=3).fit(index).save(path)
        fields = json.loads(path.read_bytes())
        fields.pop("checksum")
        samples.append(_dump(fields))
    row = tokens[:16].astype(np.int64)[None]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        estimator = load_estimator(path, index)
        targets = index.smoothed_targets(row, estimator=estimator, top_k=8)
        mass = float(targets.probs[: targets.offsets[1]].sum()) + float(targets.rest[0])
        assert abs(mass - 1) < 1e-3, f"a target of mass {mass}"
        estimator.summary()
        repr(estimator)

    return Input(samples, read, structure="json")


# tokens


def _tokens_file(name: str, samples: list[bytes], **options: Any) -> Callable[[Path], Input]:
    """Ready tokens of one file; its documents are read to the end."""

    def prepare(folder: Path) -> Input:
        path = folder / name
        np.arange(60, dtype="<u2").tofile(folder / "data.bin")

        def read(content: bytes) -> None:
            path.write_bytes(content)
            opened = folder / "data.bin" if name == "data.idx" else path
            if name.startswith("offsets"):
                ready = open_ready_tokens(folder / "plain.u16", doc_offsets=path)
            else:
                ready = open_ready_tokens(opened, **options)
            join_ready_tokens([ready], vocab_size=_VOCAB, end_of_document=0, folder=folder, notes=[])
            join_ready_tokens([ready, ready], vocab_size=None, end_of_document=None, folder=folder, notes=[])

        (np.arange(60, dtype="<u2") % 9).tofile(folder / "plain.u16")
        return Input(samples, read)

    return prepare


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _llmc(magic: int, dtype: str) -> bytes:
    head = np.zeros(256, "<i4")
    head[:3] = magic, 1, 40
    return head.tobytes() + (np.arange(40) % 7).astype(dtype).tobytes()


def _megatron_index(sequences: int) -> bytes:
    lengths = np.full(sequences, 60 // sequences, "<i4")
    offsets = (np.concatenate([[0], np.cumsum(lengths)[:-1]]) * 2).astype("<i8")
    head = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([8])
    sizes = sequences.to_bytes(8, "little") + (sequences + 1).to_bytes(8, "little")
    return head + sizes + lengths.tobytes() + offsets.tobytes() + np.arange(sequences + 1, dtype="<i8").tobytes()


_RAW = [(np.arange(80) % 11).astype(dtype).tobytes() for dtype in ("<u2", "<u4")]
_NPY = [_npy((np.arange(40) % 9).astype(dtype)) for dtype in ("<u2", "<i8", ">u4", "|u1")]
_OFFSETS = np.array([0, 20, 40, 60], "<i8")

# text


def _text_file(
    name: str, samples: list[bytes], finish: Callable[[bytes], bytes] = bytes, structure: str | None = None
) -> Callable[[Path], Input]:
    """A source of text; all its documents are read, in each of the three ways to treat what is broken."""

    def prepare(folder: Path) -> Input:
        path = folder / name

        def read(content: bytes) -> None:
            path.write_bytes(content)
            refused: InputError | None = None
            for options in (
                ReadOptions("skip"),
                ReadOptions("replace", keep_fields=("id",), name_field="id"),
                ReadOptions("fail"),
            ):
                try:
                    for document in find_sources([str(path)]).documents(options, ReadLog()):
                        document.text.encode()
                except InputError as error:
                    refused = error
            if refused is not None:
                raise refused

        return Input(samples, read, finish, structure)

    return prepare


_LINES = [
    b'{"text": "a cat sat", "id": 1}\n\n{"text": "on the mat \\u00e9", "id": "two", "more": [1, {"a": null}]}\n',
    b'\xef\xbb\xbf{"id": 1.5, "text": "first"}\r\n{"text": "second", "id": null}',
]
_PROSE = [b"A cat sat on the mat.\nThe dog\r\n\xe2\x80\xa8slept.\n" * 3, "ü — ß\n\n日本\n".encode()]


def _zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(content)


def _parquet(table: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def _tables() -> list[bytes]:
    text, ids = ["a cat", None, "sat é" * 9, ""], [1, 2, None, 4]
    return [
        _parquet(pa.table({"text": text[:1] + text[2:], "id": ids[:3]})),
        _parquet(pa.table({"text": pa.array(text).dictionary_encode(), "id": ids}), compression="none"),
        _parquet(
            pa.table({"text": pa.array(["a", "b"], pa.large_string()), "id": [{"x": [1]}, {"x": []}]}),
            compression="gzip",
        ),
        _parquet(pa.table({"text": pa.array([b"a", b"\xff"], pa.binary()), "id": ["1", "2"]}), compression="zstd"),
        _parquet(pa.table({"text": [["a"], []], "id": [1.5, None]}), data_page_version="2.0"),
    ]


def _benchmark(folder: Path) -> Input:
    path = folder / "items.jsonl"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        list(read_benchmark([str(path)], name_field="id"))

    return Input(
        [_LINES[0], b'{"id": 3, "question": "Why?", "choices": {"text": ["a", "b"], "n": [1]}}\n'],
        read,
        structure="lines",
    )


def _demonstrations(folder: Path) -> Input:
    path = folder / "pairs.jsonl"
    samples = [b'{"prompt": [1, 2], "demonstration": [3, 4, 5]}\n{"prompt": [7], "demonstration": []}\n']

    def read(content: bytes) -> None:
        path.write_bytes(content)
        len(DemonstrationDataset.from_jsonl(path))

    return Input(samples, read, structure="lines")


def _tokenizer(folder: Path) -> Input:
    from corpus_teacher.data.tokenizers import train_tokenizer

    made = train_tokenizer(["a cat sat on the mat", "the dog slept"], 300)
    path = folder / "tokenizer.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        tokenizer = load_tokenizer(path)
        tokenizer.encode_batch(["the cat sat é", ""])

    return Input([made.to_bytes()], read, structure="json")


# settings


def _toml(reads: Callable[[Path], object], names: list[str]) -> Callable[[Path], Input]:
    def prepare(folder: Path) -> Input:
        path = folder / "settings.toml"

        def read(content: bytes) -> None:
            path.write_bytes(content)
            reads(path)

        for other in (_ROOT / "studies").glob("*.toml"):  # which studies extend
            (folder / other.name).write_bytes(other.read_bytes())
        return Input([(_ROOT / name).read_bytes() for name in names], read, structure="toml")

    return prepare


def _policy(folder: Path) -> Input:
    samples = [
        {"corpus": 0.5, "fallbacks": ["shorter", "hard"], "min_match_len": 2, "min_count": 3},
        {
            "corpus": {
                "weight": 0.4,
                "schedule": {"kind": "cosine", "first": 1.0, "last": 0.2, "end_step": 1000},
                "evidence": [{"by": "count", "half": 2}, {"by": "entropy", "low": 0, "high": 4}],
            },
            "neural": 0.3,
            "routing": {"by": "corpus", "share": 0.15},
            "complementary": True,
        },
        {"corpus": {"weight": 0.4, "schedule": {"kind": "early-only", "end_step": 10}}, "adaptive": {}},
    ]
    given = [_dump(sample) for sample in samples]

    def read(content: bytes) -> None:
        try:
            table = json.loads(content)
        except (ValueError, RecursionError):
            return
        policy = make_policy(table)
        for step in (0, 5, 10**6):
            policy.asked(step=step)
        make_policy(policy.to_dict())

    usable = []
    for sample in given:
        try:
            read(sample)
            usable.append(sample)
        except ValueError:
            continue
    return Input(usable, read, structure="json")


# caches of neural teachers, and others' formats


def _kept_rows(count: int, k: int, rng: np.random.Generator) -> SparseRows:
    probs = torch.from_numpy(rng.dirichlet(np.ones(k), count).astype(np.float32))
    ids = torch.arange(k).repeat(count)
    return SparseRows(torch.full((count,), k), ids, probs.reshape(-1), torch.zeros(count))


def _cache(
    file: str, finish: Callable[[bytes], bytes] = bytes, structure: str | None = None
) -> Callable[[Path], Input]:
    def prepare(folder: Path) -> Input:
        rng = np.random.default_rng(0)
        path = folder / "cache"
        pairs = [(np.array([number, 1, 2, 3]), _kept_rows(4, 3, rng)) for number in range(5)]
        import_rows(pairs, path, vocab_size=9, k=3, name="x", shard_tokens=8)
        content = (path / file).read_bytes()

        def read(content: bytes) -> None:
            (path / file).write_bytes(content)
            cached = CachedTeacher(path, missing="invalid")
            cached(np.array([[0, 1, 2, 3], [4, 1, 2, 3], [9 - 1, 1, 2, 3]]))
            cached.describe()
            cached.verify()

        return Input([content], read, finish, structure)

    return prepare


def _seal_cache(manifest: dict[str, Any]) -> str:
    from corpus_teacher.neural.shards import _seal

    return _seal(manifest)


def _distillkit(folder: Path) -> Input:
    form = ColumnFormat(vocab_size=50, k=3)
    columns = to_distillkit(_kept_rows(4, 3, np.random.default_rng(0)), form)
    ids = [[1, 2, 3, 4]]
    tables = [
        {"input_ids": ids, **{name: [column] for name, column in columns.items()}},
        {"input_ids": ids, "token_ids": [[[1, 2, 3]] * 4], "top_values": [[[-1.0, -2.0, -3.0]] * 4]},
        {"input_ids": ids, "token_ids": [[[1, 2], [3]]], "top_values": [[[-1.0, None], [-2.0]]]},
        {"input_ids": [None], "token_ids": [["x"]], "top_values": [[0.5]]},
    ]
    path = folder / "rows.parquet"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for _ in read_distillkit(path, form):
            pass

    samples = []
    for table in tables[:2]:
        samples.append(_parquet(pa.table(table)))
    return Input(samples, read)


def _distillkit_table(folder: Path) -> Input:
    plain = {
        "d": 50,
        "k": 6,
        "exact_k": 2,
        "exact_dtype": "float32",
        "polynomial_terms": [0, 1, "sqrt"],
        "delta_encoding": True,
        "residual_bins": [{"num_elements": 2, "element_bits": 4, "scale_dtype": "float16"}],
        "normalize_t": False,
    }
    rows = [[{"k": 6}, plain], [{"values": [[200, 1, 7, 0]]}, {"d": 50, "k": 1, "exact_k": 1}]]

    def read(content: bytes) -> None:
        try:
            _, table = json.loads(content)
        except (ValueError, TypeError, RecursionError):
            return
        form = ColumnFormat.from_table(table)
        if form.value_bytes < 1 << 16 and form.k < 1 << 12:
            form.decode(np.zeros((2, form.value_bytes), np.uint8))

    return Input([_dump(row) for row in rows], read, structure="json")


def _megatron_logits(folder: Path) -> Input:
    generator = torch.Generator().manual_seed(0)
    logs = torch.randn(8, 2, 3, generator=generator).log_softmax(-1) - 0.1
    saved = {
        "values": logs.half(),
        "indices_low": torch.arange(48).reshape(8, 2, 3).to(torch.int32).to(torch.uint16),
        "bit_17": torch.zeros(8, 2, 3, dtype=torch.bool),
    }

    def archive(saved: Any) -> bytes:
        buffer, file = io.BytesIO(), io.BytesIO()
        torch.save(saved, buffer)
        meta = {"hash": "ab", "identifiers": {"seed": 1}, "saver": {"k": 3, "p": None}}
        with tarfile.open(fileobj=file, mode="w") as made:
            for name, content in (
                ("_meta.json", _dump(meta)),
                ("0.pt.zst", zstandard.ZstdCompressor(level=3).compress(buffer.getvalue())),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
        return file.getvalue()

    path = folder / "dp0__10.tar"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for _ in read_megatron(folder, 60):
            pass

    lists = {name: [column] for name, column in saved.items()}
    return Input([archive(saved), archive(lists)], read)


def _megatron_member(folder: Path) -> Input:
    """What torch saved, packed by zstd: the part of a tar file that isn't tar."""
    from corpus_teacher.neural import megatron

    saved = {
        "values": torch.zeros(2, 1, 3).log_softmax(-1),
        "indices_low": torch.arange(6).reshape(2, 1, 3).to(torch.int32).to(torch.uint16),
        "bit_17": torch.zeros(2, 1, 3, dtype=torch.bool),
    }
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return Input([buffer.getvalue()], lambda content: megatron._batches(content, "a member"), _zstd)


# what trainings and studies leave


def _checkpoint(folder: Path) -> Input:
    out = folder / "run"
    for step in (3, 6):
        place = out / f"checkpoint-{step}"
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"weights" * step)
        (place / "trainer_state.json").write_text('{"global_step": 3}')
        seal_checkpoint(place)
    path = out / "checkpoint-6" / "whole.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert newest_whole(out, lambda notice: None) is not None

    return Input([path.read_bytes()], read, structure="json")


def _study_folder(file: str) -> Callable[[Path], Input]:
    def prepare(folder: Path) -> Input:
        source = _ROOT / "studies" / "results" / "0-pilot"
        packed = lzma.decompress((source / PACKED_FILE).read_bytes())
        rows = [json.loads(line) for line in packed.splitlines()[:6]]
        for row in rows:
            for domain in row.get("metrics", {}).values():
                if isinstance(domain, dict) and "documents" in domain:
                    domain["documents"] = domain["documents"][:3]
        lines = b"".join(_dump(row) + b"\n" for row in rows)
        contents = {"study.json": (source / "study.json").read_bytes(), ROWS_FILE: lines}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        costs = _dump([{"arm": "hard", "size": "small", "budget": "base", "steps": 3, "ratio": 1.0, "ours": [1.0]}])
        sample = {**contents, PACKED_FILE: lines, "costs.json": costs}[file]
        if file == PACKED_FILE:
            (folder / ROWS_FILE).unlink()

        def read(content: bytes) -> None:
            (folder / file).write_bytes(content)
            if file == "costs.json":
                read_costs(folder)
                return
            results = read_results(folder)
            from corpus_teacher.study.report import tables

            tables.environment(results)

        finish = lzma.compress if file == PACKED_FILE else bytes
        return Input([sample], read, finish, "json" if file.endswith(".json") else "lines")

    return prepare


def _synthesis(folder: Path) -> Input:
    from corpus_teacher.synthesis.folder import read_record, write_record

    path = folder / "synthesis.json"

    write_record(folder, {"complete": False, "settings": {"k": 1}, "versions": {"numpy": "1"}})
    sample = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_record(folder)

    return Input([sample], read, structure="json")


def _synthesis_part(folder: Path) -> Input:
    from corpus_teacher.synthesis import folder as parts

    tokens, sizes = np.arange(9, dtype=np.uint16), np.array([4, 5])
    parts.write_part(folder, 0, parts.Part(np.zeros(2, np.float32), tokens, sizes))
    path = next(path for path in folder.rglob("*") if path.is_file())
    sample = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for part in parts.read_parts(folder):
            part.documents()

    return Input([sample], read)


def _mixture(folder: Path) -> Input:
    from corpus_teacher.blend.interpolation import MixtureWeights

    sample = {"edges": {"match_len": [1, 3], "entropy": [0.5]}, "weights": [0.5] * 6, "tokens": [1] * 6}

    def read(content: bytes) -> None:
        try:
            table = json.loads(content)
        except (ValueError, RecursionError):
            return
        weights = MixtureWeights.from_dict(table)
        evidence = {name: np.array([0.0, 2.0]) for name in weights.buckets.edges}
        weights(evidence)
        MixtureWeights.from_dict(weights.to_dict())

    return Input([_dump(sample)], read, structure="json")


READERS: dict[str, Reader] = {
    name: Reader(name, prepare)
    for name, prepare in {
        "index-manifest": _index,
        "shards-manifest": _shards,
        "document-names": _names,
        "estimator": _estimator,
        "tokens-raw": _tokens_file("tokens.bin", [*_RAW, _llmc(20240520, "<u2"), _llmc(20240801, "<u4")]),
        "tokens-npy": _tokens_file("tokens.npy", _NPY),
        "tokens-megatron": _tokens_file("data.idx", [_megatron_index(1), _megatron_index(5)]),
        "offsets-npy": _tokens_file("offsets.npy", [_npy(_OFFSETS), _npy(_OFFSETS[:-1].astype(np.uint16))]),
        "offsets-raw": _tokens_file("offsets.bin", [_OFFSETS.tobytes()]),
        "text": _text_file("a.txt", _PROSE),
        "json-lines": _text_file("a.jsonl", _LINES, structure="lines"),
        "gzip": _text_file("a.jsonl.gz", _LINES, gzip.compress, "lines"),
        "zstd": _text_file("a.txt.zst", _PROSE, _zstd),
        "parquet": _text_file("a.parquet", _tables()),
        "benchmark": _benchmark,
        "demonstrations": _demonstrations,
        "tokenizer": _tokenizer,
        "training-toml": _toml(
            read_run, [f"examples/train/{path.name}" for path in sorted((_ROOT / "examples/train").glob("*.toml"))]
        ),
        "study-toml": _toml(read_study, ["studies/2-label-smoothing.toml", "studies/0-pilot.toml"]),
        "policy": _policy,
        "cache-manifest": _cache("manifest.json", _sealed_by("seal", _seal_cache), "json"),
        "cache-shard": _cache("shard-00000.bin"),
        "distillkit": _distillkit,
        "distillkit-table": _distillkit_table,
        "megatron-logits": _megatron_logits,
        "megatron-member": _megatron_member,
        "checkpoint": _checkpoint,
        "study-rows": _study_folder(ROWS_FILE),
        "study-rows-packed": _study_folder(PACKED_FILE),
        "study-json": _study_folder("study.json"),
        "study-costs": _study_folder("costs.json"),
        "synthesis-record": _synthesis,
        "synthesis-part": _synthesis_part,
        "mixture": _mixture,
        **SHARDS,
        **REQUESTS,
    }.items()
}
"""All readers, by name."""
