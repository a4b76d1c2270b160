"""Caches of other programs: DistillKit's columns, Megatron-LM's offline logits."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import CacheError, ConfigError, InputError, OutputError
from corpus_teacher.neural import CachedTeacher, NeuralTeacher, SparseRows, TargetFormat, import_rows
from corpus_teacher.neural.distillkit import (
    IDS,
    LOGS,
    from_distillkit,
    pack_ids,
    read_distillkit,
    to_distillkit,
    unpack_ids,
    write_distillkit,
)
from corpus_teacher.neural.megatron import read_megatron, read_megatron_meta

from .neural_models import VOCAB, make_model

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
    packed = pack_ids(ids, vocab_size)
    assert packed.shape == (4, -(-k * bits // 8))
    assert [naive_ids(row, bits, k) for row in packed.tolist()] == ids.tolist()
    assert np.array_equal(unpack_ids(packed, vocab_size, k), ids)


@pytest.mark.parametrize(("precision", "width", "error"), [("fp32", 4, 1e-6), ("fp16", 2, 5e-3), ("bf16", 2, 3e-2)])
def test_distillkit_round_trip(
    teacher: NeuralTeacher, tmp_path: Path, precision: str, width: int, error: float
) -> None:
    path = tmp_path / "rows.parquet"
    windows = TokenWindows(TOKENS, LENGTH, shuffle=False)
    assert write_distillkit(teacher, windows, path, k=K, precision=precision) == COUNT
    table = pq.read_table(path).to_pydict()
    assert [len(position) for position in table[LOGS][0]] == [K * width] * LENGTH
    assert [len(position) for position in table[IDS][0]] == [-(-K * 6 // 8)] * LENGTH
    out = tmp_path / "cache"
    pairs = read_distillkit(path, VOCAB, K, precision)
    summary = import_rows(pairs, out, vocab_size=VOCAB, k=K, name="distillkit", precision="fp32", shard_tokens=16)
    assert (summary.windows, summary.positions) == (COUNT, COUNT * LENGTH)
    expected, actual = teacher(ROWS), CachedTeacher(out)(ROWS[::-1]).validate()
    dense = actual.dense().reshape(COUNT, LENGTH, VOCAB).flip(0).reshape(-1, VOCAB)
    torch.testing.assert_close(dense, expected.dense(), rtol=error, atol=error / 10)
    assert summary.mean_cut_mass == pytest.approx(float(expected.cut_mass.mean()), abs=error)


def test_distillkit_raw_columns() -> None:
    logs = np.log([[0.25, 0.5], [0.125, 0.0625]])
    rows = from_distillkit({"token_ids": [[3, 1], [0, 2]], "top_values": logs}, 4, 2)
    assert rows.token_ids.tolist() == [1, 3, 0, 2]  # the most probable first
    assert rows.probs.tolist() == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert rows.tail.tolist() == pytest.approx([0.25, 0.8125])
    rounded = from_distillkit({"token_ids": [[0, 1]], "top_values": np.log([[0.6, 0.402]])}, 4, 2)
    assert float(rounded.probs.sum()) == pytest.approx(1)
    assert rounded.tail.tolist() == [0]


def test_distillkit_refuses(teacher: NeuralTeacher, tmp_path: Path) -> None:
    good = to_distillkit(SparseRows(*map(torch.tensor, ([2], [3, 1], [0.5, 0.25], [0.25]))), 8)
    for change, k, words in (
        ({LOGS: [[0] * 5]}, 2, "polynomial terms and residual bins aren't read"),
        ({IDS: [[0, 0]]}, 2, "2 ids of 3 bits take 1 bytes"),
        ({}, 3, "3 exact values of bf16 take 6 bytes"),
    ):
        with pytest.raises(InputError, match=words):
            from_distillkit({**good, **change}, 8, k)
    with pytest.raises(InputError, match="the vocabulary has 3 tokens"):
        from_distillkit({"token_ids": [[3]], "top_values": [[-1.0]]}, 3, 1)
    with pytest.raises(InputError, match="these may be logits"):
        from_distillkit({"token_ids": [[1]], "top_values": [[7.0]]}, 3, 1)
    with pytest.raises(InputError, match=r"shape \(1, 1\) and log-probabilities \(1, 2\)"):
        from_distillkit({"token_ids": [[1]], "top_values": [[-1.0, -2.0]]}, 3, 1)
    with pytest.raises(InputError, match="there are the columns text"):
        from_distillkit({"text": []}, 3, 1)
    with pytest.raises(ConfigError, match="precision is 'int8'"):
        to_distillkit(SparseRows(*(torch.zeros(0) for _ in range(4))), 3, "int8")
    with pytest.raises(ConfigError, match=r"these keep \[1, 2\]"):
        to_distillkit(SparseRows(torch.tensor([1, 2]), torch.arange(3), torch.ones(3), torch.zeros(2)), 3)
    with pytest.raises(InputError, match="can't be read as Parquet"):
        list(read_distillkit(tmp_path / "none.parquet", 8, 2))
    pq.write_table(pa.table({"token_ids": [[[1]]], "top_values": [[[-1.0]]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column input_ids"):
        list(read_distillkit(tmp_path / "a.parquet", 8, 1))
    with pytest.raises(OutputError, match="can't be written"):
        write_distillkit(teacher, [], tmp_path / "none" / "a.parquet", k=2)


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


def write_megatron(folder: Path, iterations: dict[int, dict[str, torch.Tensor]], name: str = "cp0_dp0__0.tar") -> None:
    """Files as the description in `corpus_teacher.neural.megatron` has them."""
    folder.mkdir(exist_ok=True)
    (folder / "_meta.json").write_text(json.dumps({"k": K, "hash": "ab"}))
    with tarfile.open(folder / name, "w") as archive:
        for iteration, tensors in iterations.items():
            buffer = io.BytesIO()
            torch.save(tensors, buffer)
            content = zstandard.ZstdCompressor().compress(buffer.getvalue())
            member = tarfile.TarInfo(f"{iteration}.pt.zst")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_megatron(teacher: NeuralTeacher, tmp_path: Path) -> None:
    expected = teacher(ROWS)
    ids = expected.token_ids.reshape(COUNT, LENGTH, K)
    whole = torch.gather(expected.dense(), 1, expected.token_ids.reshape(-1, K))
    probs = whole.log().reshape(COUNT, LENGTH, K)
    saved = {
        number: {
            "a": probs[rows].half(),
            "b": ids[rows].to(torch.int32).to(torch.uint16),
            "c": torch.zeros_like(ids[rows], dtype=torch.bool),
        }
        for number, rows in ((10, slice(2, COUNT)), (2, slice(0, 2)))
    }
    write_megatron(tmp_path / "logits", saved)
    write_megatron(tmp_path / "logits", {}, "cp0_dp1__0.tar")
    assert read_megatron_meta(tmp_path / "logits")["hash"] == "ab"
    read = list(read_megatron(tmp_path / "logits", VOCAB))
    assert [iteration for iteration, _ in read] == [2, 10]
    joined = SparseRows.concatenate([rows for _, rows in read])
    assert torch.equal(joined.token_ids, expected.token_ids)
    torch.testing.assert_close(joined.probs, whole.reshape(-1), rtol=5e-3, atol=1e-4)
    torch.testing.assert_close(joined.tail, expected.cut_mass, rtol=0.1, atol=3e-3)
    assert list(read_megatron(tmp_path / "logits", VOCAB, data_rank=1)) == []


def test_megatron_marks_and_high_bits(tmp_path: Path) -> None:
    tensors = {
        "values": torch.tensor([[-1.0, -1000.0, -2.0], [-1000.0, -1000.0, -1000.0]], dtype=torch.bfloat16),
        "low": torch.tensor([[5, 65_535, 1], [65_535] * 3], dtype=torch.int32).to(torch.uint16),
        "high": torch.tensor([[True, True, False], [True] * 3]),
    }
    write_megatron(tmp_path / "logits", {0: tensors})
    ((_, rows),) = read_megatron(tmp_path / "logits", 100_000)
    assert rows.lengths.tolist() == [2, 0]
    assert rows.token_ids.tolist() == [65_541, 1]
    assert rows.probs.tolist() == pytest.approx([np.exp(-1), np.exp(-2)])
    assert rows.tail.tolist() == pytest.approx([1 - np.exp(-1) - np.exp(-2), 1])


def test_megatron_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"_meta\.json can't be read"):
        list(read_megatron(tmp_path, VOCAB))
    with pytest.raises(InputError, match="ids of 17 bits"):
        list(read_megatron(tmp_path, 200_000))
    folder = tmp_path / "logits"
    write_megatron(folder, {0: {"values": torch.zeros(2, 2)}})
    with pytest.raises(InputError, match=r"holds torch.float32 \(2, 2\): expected"):
        list(read_megatron(folder, VOCAB))
    with pytest.raises(InputError, match=r"holds no cp3_dp0__N\.tar"):
        list(read_megatron(folder, VOCAB, context_rank=3))
    (folder / "cp0_dp0__0.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match="can't be read as a tar file"):
        list(read_megatron(folder, VOCAB))
    with tarfile.open(folder / "cp0_dp0__0.tar", "w") as archive:
        member = tarfile.TarInfo("0.pt.zst")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"none"))
    with pytest.raises(InputError, match=r"0.pt.zst can't be read"):
        list(read_megatron(folder, VOCAB))
