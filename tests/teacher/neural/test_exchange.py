"""Caches of another program: DistillKit's columns."""

from __future__ import annotations

import importlib
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import CacheError, ConfigError, InputError, OutputError
from corpus_teacher.neural import CachedTeacher, NeuralTeacher, SparseRows, TargetFormat, import_rows
from corpus_teacher.neural.distillkit import (
    IDS,
    LOGS,
    from_distillkit,
    read_distillkit,
    to_distillkit,
    write_distillkit,
)
from corpus_teacher.neural.distillkit_format import ColumnFormat, pack_bits, unpack_bits

from ..neural_models import VOCAB, make_model

LENGTH, COUNT, K = 8, 5, 6
TOKENS = np.random.default_rng(0).integers(0, VOCAB, LENGTH * COUNT).astype(np.uint16)
ROWS = TOKENS.reshape(COUNT, LENGTH).astype(np.int64)


@pytest.fixture(scope="module")
def teacher() -> NeuralTeacher:
    return NeuralTeacher(make_model(), kept=TargetFormat(k=K))


def naive_ids(packed: list[int], bits: int, k: int) -> list[int]:
    """Read bit by bit, the most significant first."""
    text = "".join(f"{byte:08b}" for byte in packed)
    return [int(text[number * bits : (number + 1) * bits], 2) for number in range(k)]


@pytest.mark.parametrize(("vocab_size", "bits"), [(2, 1), (40, 6), (65_536, 16), (65_537, 17), (128_256, 17)])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_packed_ids(vocab_size: int, bits: int, k: int) -> None:
    ids = np.random.default_rng(k).integers(0, vocab_size, (4, k))
    ids[0, -1] = vocab_size - 1
    assert ColumnFormat(vocab_size, k).id_bits == bits
    packed = pack_bits(ids, bits)
    assert packed.shape == (4, -(-k * bits // 8))
    assert [naive_ids(row, bits, k) for row in packed.tolist()] == ids.tolist()
    assert np.array_equal(unpack_bits(packed, bits, k), ids)


@pytest.mark.parametrize(("precision", "width", "error"), [("fp32", 4, 1e-6), ("fp16", 2, 5e-3), ("bf16", 2, 3e-2)])
def test_distillkit_round_trip(
    teacher: NeuralTeacher, tmp_path: Path, precision: str, width: int, error: float
) -> None:
    path = tmp_path / "rows.parquet"
    windows = TokenWindows(TOKENS, LENGTH, shuffle=False)
    form = ColumnFormat(VOCAB, K, exact_dtype=precision)
    assert write_distillkit(teacher, windows, path, form=form) == COUNT
    table = pq.read_table(path).to_pydict()
    assert [len(position) for position in table[LOGS][0]] == [K * width] * LENGTH
    assert [len(position) for position in table[IDS][0]] == [-(-K * 6 // 8)] * LENGTH
    out = tmp_path / "cache"
    pairs = read_distillkit(path, form)
    summary = import_rows(pairs, out, vocab_size=VOCAB, k=K, name="distillkit", precision="fp32", shard_tokens=16)
    assert (summary.windows, summary.positions) == (COUNT, COUNT * LENGTH)
    expected, actual = teacher(ROWS), CachedTeacher(out)(ROWS[::-1]).validate()
    dense = actual.dense().reshape(COUNT, LENGTH, VOCAB).flip(0).reshape(-1, VOCAB)
    torch.testing.assert_close(dense, expected.dense(), rtol=error, atol=error / 10)
    assert summary.mean_cut_mass == pytest.approx(float(expected.cut_mass.mean()), abs=error)


def test_distillkit_raw_columns() -> None:
    logs = np.log([[0.25, 0.5], [0.125, 0.0625]])
    rows = from_distillkit({"token_ids": [[3, 1], [0, 2]], "top_values": logs}, ColumnFormat(4, 2))
    assert rows.token_ids.tolist() == [1, 3, 0, 2]  # the most probable first
    assert rows.probs.tolist() == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert rows.tail.tolist() == pytest.approx([0.25, 0.8125])
    rounded = from_distillkit({"token_ids": [[0, 1]], "top_values": np.log([[0.6, 0.402]])}, ColumnFormat(4, 2))
    assert float(rounded.probs.sum()) == pytest.approx(1)
    assert rounded.tail.tolist() == [0]


FORMATS = {
    "exact": {"exact_k": 12, "exact_dtype": "bfloat16", "delta_encoding": False},
    "differences": {"exact_k": 12, "exact_dtype": "float32"},
    "curve": {"exact_k": 4, "polynomial_terms": [0, 1, 2], "delta_encoding": False},
    "published": {"exact_k": 4, "polynomial_terms": [0, 1, 2], "term_dtype": "float32", "delta_encoding": True},
    "everything": {
        "exact_k": 2,
        "exact_dtype": "float16",
        "polynomial_terms": [0, 1, "sqrt"],
        "term_dtype": "float32",
        "residual_bins": [
            {"scale_dtype": "float16", "element_bits": 5, "num_elements": 3},
            {"scale_dtype": "float32", "element_bits": 1, "num_elements": 4},
        ],
        "delta_encoding": False,
        "normalize_t": True,
    },
    "bins alone": {
        "exact_k": 6,
        "residual_bins": [{"scale_dtype": "bfloat16", "element_bits": 8, "num_elements": 6}],
        "delta_encoding": True,
    },
}


def some_logs(positions: int = 7, k: int = 12) -> torch.Tensor:
    """Descending log-probabilities."""
    logits = torch.randn(positions, 40, generator=torch.Generator().manual_seed(1)) * 2
    return logits.log_softmax(-1).sort(-1, descending=True).values[:, :k].contiguous()


def naive_values(packed: bytes, table: dict[str, Any], k: int) -> list[float]:
    """One position read value by value, in Python's floats."""
    letters = {"float16": "e", "float32": "f", "float64": "d"}

    def floats(count: int, kind: str) -> list[float]:
        nonlocal packed
        if kind == "bfloat16":
            raw, packed = packed[: 2 * count], packed[2 * count :]
            halves = [b"\0\0" + raw[2 * number : 2 * number + 2] for number in range(count)]
            return [struct.unpack("<f", half)[0] for half in halves]
        size = struct.calcsize(letters[kind]) * count
        raw, packed = packed[:size], packed[size:]
        return list(struct.unpack(f"<{count}{letters[kind]}", raw))

    values = floats(table["exact_k"], table.get("exact_dtype", "float32"))
    terms, others = table.get("polynomial_terms", []), k - table["exact_k"]
    coefficients = floats(len(terms), table.get("term_dtype", "float32")) if terms else []
    left: list[float] = []
    for one in table.get("residual_bins", []):
        (scale,) = floats(1, one["scale_dtype"])
        bits, count = one["element_bits"], one["num_elements"]
        size = -(-bits * count // 8)
        raw, packed = packed[:size], packed[size:]
        codes = naive_ids(list(raw), bits, count)
        left += [(2 * code - 1) * scale if bits == 1 else (code - 2 ** (bits - 1)) * scale for code in codes]
    for place in range(others):
        t = place / (others - 1) if table.get("normalize_t") else place
        curve = sum(
            c * (math.sqrt(t) if term == "sqrt" else t**term) for c, term in zip(coefficients, terms, strict=True)
        )
        values.append(curve + (left[place] if place < len(left) else 0))
    assert not packed
    return np.cumsum(values).tolist() if table.get("delta_encoding", True) else values


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_part_of_a_format(name: str) -> None:
    form, logs = ColumnFormat.from_table({"d": 40, "k": 12, **FORMATS[name]}), some_logs()
    packed = form.encode(logs)
    assert packed.shape == (7, form.value_bytes)
    read = form.decode(packed)
    expected = [naive_values(bytes(row), FORMATS[name], 12) for row in packed]
    rough = name in ("everything", "bins alone")  # sums of 16-bit floats
    torch.testing.assert_close(read, torch.tensor(expected), rtol=1e-2 if rough else 1e-5, atol=1e-3)
    wrong = {"exact": 0.03, "differences": 1e-5, "everything": 0.7, "bins alone": 0.1}.get(name, 0.6)
    assert float((read - logs).abs().max()) < wrong
    ids = torch.arange(12).repeat(7, 1)
    rows = SparseRows(torch.full((7,), 12), ids.flatten(), logs.exp().flatten(), 1 - logs.exp().sum(1))
    again = from_distillkit(to_distillkit(rows, form), form)
    assert again.lengths.tolist() == [12] * 7
    assert sorted(again.token_ids[:12].tolist()) == list(range(12))


@pytest.mark.live
@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("vocab_size", [40, 50_257, 128_256])
def test_distillkit_itself_reads_and_writes_the_same(name: str, vocab_size: int) -> None:
    theirs = pytest.importorskip(
        "distillkit.compression.compressor", reason="DistillKit isn't installed: pip install its repository"
    )
    config = importlib.import_module("distillkit.compression.config")
    table = {"d": vocab_size, "k": 12, "residual_bins": [], **FORMATS[name]}
    kit = theirs.LogprobCompressor(config.DistributionQuantizationConfig(**table))
    form, logs = ColumnFormat.from_table(table), some_logs()
    ids = torch.stack([torch.randperm(vocab_size)[:12] for _ in range(7)])
    # what it writes
    columns = {key: value for key, value in kit.compress_from_sparse(ids[None], logs[None]).items()}
    assert columns[LOGS].shape[-1] == form.value_bytes
    assert torch.equal(form.decode(columns[LOGS][0].numpy()), kit.decompress_to_sparse(columns)[1][0].float())
    assert np.array_equal(unpack_bits(columns[IDS][0].numpy(), form.id_bits, 12), ids.numpy())
    # what we write
    rows = SparseRows(torch.full((7,), 12), ids.flatten(), logs.exp().flatten(), 1 - logs.exp().sum(1))
    ours = {key: torch.tensor([value], dtype=torch.uint8) for key, value in to_distillkit(rows, form).items()}
    read_ids, read_logs = kit.decompress_to_sparse(ours)
    assert torch.equal(read_ids[0], ids)
    assert torch.equal(read_logs[0].float(), form.decode(ours[LOGS][0].numpy()))
    if not form.num_fitted:
        logs_of_rows = rows.probs.log().reshape(1, 7, 12)
        assert torch.equal(ours[LOGS], kit.compress_from_sparse(ids[None], logs_of_rows)[LOGS])


def test_distillkit_refuses(teacher: NeuralTeacher, tmp_path: Path) -> None:
    form = ColumnFormat(8, 2)
    good = to_distillkit(SparseRows(*map(torch.tensor, ([2], [3, 1], [0.5, 0.25], [0.25]))), form)
    for change, other, words in (
        ({LOGS: [[0] * 5]}, form, r"shape \(1, 5\) and 2 of them, 2 exact, take 4 bytes"),
        ({IDS: [[0, 0]]}, form, "2 ids of 3 bits take 1 bytes"),
        ({}, ColumnFormat(8, 3), "3 of them, 3 exact, take 6 bytes"),
    ):
        with pytest.raises(InputError, match=words):
            from_distillkit({**good, **change}, other)
    one = ColumnFormat(3, 1)
    with pytest.raises(InputError, match="the vocabulary has 3 tokens"):
        from_distillkit({"token_ids": [[3]], "top_values": [[-1.0]]}, one)
    with pytest.raises(InputError, match="these may be logits"):
        from_distillkit({"token_ids": [[1]], "top_values": [[7.0]]}, one)
    with pytest.raises(InputError, match=r"shape \(1, 1\) and log-probabilities \(1, 2\)"):
        from_distillkit({"token_ids": [[1]], "top_values": [[-1.0, -2.0]]}, one)
    with pytest.raises(InputError, match="there are the columns text"):
        from_distillkit({"text": []}, one)
    with pytest.raises(ConfigError, match=r"hold 2 tokens a position, these keep \[1, 2\]"):
        to_distillkit(SparseRows(torch.tensor([1, 2]), torch.arange(3), torch.ones(3), torch.zeros(2)), form)
    with pytest.raises(InputError, match="can't be read as Parquet"):
        list(read_distillkit(tmp_path / "none.parquet", form))
    pq.write_table(pa.table({"token_ids": [[[1]]], "top_values": [[[-1.0]]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column input_ids"):
        list(read_distillkit(tmp_path / "a.parquet", form))
    with pytest.raises(OutputError, match="can't be written"):
        write_distillkit(teacher, [], tmp_path / "none" / "a.parquet", form=ColumnFormat(VOCAB, 2))
    with pytest.raises(ConfigError, match=f"the format has 8 tokens and the teacher {VOCAB}"):
        write_distillkit(teacher, [], tmp_path / "a.parquet", form=form)


def test_another_format_is_not_read_silently() -> None:
    """Differences taken for values, as an older or newer configuration would."""
    logs, ids = some_logs(), torch.arange(12).repeat(7)
    rows = SparseRows(torch.full((7,), 12), ids, logs.exp().flatten(), 1 - logs.exp().sum(1))
    written = to_distillkit(rows, ColumnFormat(40, 12, exact_dtype="float32", delta_encoding=True))
    with pytest.raises(InputError, match="check the format"):
        from_distillkit(written, ColumnFormat(40, 12, exact_dtype="float32"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exact_kk": 3}, "no key 'exact_kk': did you mean 'exact_k'"),
        ({"exact_k": 13}, "exact_k is 13 and the bins hold 0: together at most k, 12"),
        ({"exact_k": 3}, "exact_k is 3 of 12: give polynomial_terms or residual_bins"),
        ({"exact_dtype": "float23"}, "exact_dtype is 'float23', which is unknown: did you mean 'float32'"),
        ({"polynomial_terms": ["sqr"], "exact_k": 3}, "polynomial_terms has 'sqr'"),
        ({"residual_bins": [{"element_bits": 3}]}, r"residual_bins\[0\] has no num_elements"),
        ({"residual_bins": [{"element_bits": 40, "num_elements": 1}]}, "element_bits is 40: give at most 32"),
        ({"k": 0}, "k is 0"),
    ],
)
def test_formats_that_are_none(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ColumnFormat.from_table({"d": 40, "k": 12, "exact_k": 12, **change})
    with pytest.raises(ConfigError, match="logprob_compressor has no exact_k"):
        ColumnFormat.from_table({"d": 40, "k": 12})
    with pytest.raises(ConfigError, match="error_diffusion is true"):
        ColumnFormat(40, 12, error_diffusion=True).encode(some_logs())
    with pytest.raises(ConfigError, match=r"shape \(7, 11\): the format has 12"):
        ColumnFormat(40, 12).encode(some_logs(k=11))


def test_imports_refuse(tmp_path: Path) -> None:
    def rows(positions: int, k: int) -> SparseRows:
        size = positions * k
        columns = (
            torch.full((positions,), k),
            torch.arange(size) % k,
            torch.full((size,), 1 / k),
            torch.zeros(positions),
        )
        return SparseRows(*columns)

    options: dict[str, Any] = {"vocab_size": 9, "k": 2, "name": "elsewhere"}
    with pytest.raises(InputError, match="there are no windows to import"):
        import_rows([], tmp_path / "a", **options)
    for number, pair in enumerate([(np.arange(4), rows(3, 2)), (np.arange(4), rows(4, 3)), (np.arange(3), rows(3, 2))]):
        with pytest.raises(InputError, match="all need 4 positions of at most 2"):
            import_rows([(np.arange(4) + 1, rows(4, 2)), pair], tmp_path / f"b{number}", **options)
    import_rows([(np.arange(4), rows(4, 2)), (np.arange(4), rows(4, 1))], tmp_path / "c", **options)
    assert CachedTeacher(tmp_path / "c").num_windows == 1
    with pytest.raises(CacheError, match="was begun with length 4"):
        import_rows([(np.arange(3), rows(3, 2))], tmp_path / "c", **options)
