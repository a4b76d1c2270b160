"""Megatron-LM's offline logits, in the layouts that its saver writes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard

from corpus_teacher.errors import InputError
from corpus_teacher.neural import CachedTeacher, NeuralTeacher, SparseRows, TargetFormat, import_rows
from corpus_teacher.neural.megatron import read_megatron, read_megatron_meta

from ..neural_models import VOCAB, make_model

LENGTH, COUNT, K = 8, 6, 6
ROWS = np.random.default_rng(0).integers(0, VOCAB, (COUNT, LENGTH))
META = {"hash": "ab", "identifiers": {"seed": 1}, "saver": {"k": K, "p": None, "min_k": 1, "save_dtype": "fp16"}}


def put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write(path: Path, iterations: dict[str, Any], meta: dict[str, Any] | None = META) -> None:
    """A file as `LogitsSaverHooks._write_batched_tar` makes it: _meta.json first, then a member an iteration."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        if meta is not None:
            put(archive, "_meta.json", json.dumps(meta).encode())
        for name, saved in iterations.items():
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            put(archive, f"{name}.pt.zst", zstandard.ZstdCompressor(level=3).compress(buffer.getvalue()))


def packed(values: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """(T, B, k) of each as they are saved."""
    low = (ids & 0xFFFF).to(torch.int32).to(torch.uint16)
    return {"values": values, "indices_low": low, "bit_17": (ids >> 16).to(torch.bool)}


def as_lists(batches: list[dict[str, torch.Tensor]]) -> dict[str, list[torch.Tensor]]:
    """Version 1: of each microbatch a tensor."""
    return {name: [batch[name] for batch in batches] for name in batches[0]}


@pytest.fixture(scope="module")
def teacher() -> NeuralTeacher:
    return NeuralTeacher(make_model(), kept=TargetFormat(k=K))


@pytest.fixture(scope="module")
def said(teacher: NeuralTeacher) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and ids of the windows, (T, B, k) each: the sequence first, as in Megatron."""
    expected = teacher(ROWS)
    ids = expected.token_ids.reshape(-1, K)
    logs = torch.gather(expected.dense(), 1, ids).log()
    return tuple(part.reshape(COUNT, LENGTH, K).transpose(0, 1).contiguous() for part in (logs, ids))  # type: ignore[return-value]


@pytest.mark.parametrize("layout", ["version 1", "version 2", "two context ranks"])
def test_windows_come_back(
    teacher: NeuralTeacher, said: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, layout: str
) -> None:
    logs, ids = said[0].half(), said[1]
    folder = tmp_path / "logits"
    batches = [packed(logs[:, part], ids[:, part]) for part in (slice(0, 2), slice(2, 4), slice(4, 6))]
    if layout == "version 1":  # two microbatches in iteration 3, one in 12, which is not after 3 as text
        write(folder / "cp0_dp0__3.tar", {"3": as_lists(batches[:2])})
        write(folder / "cp0_dp0__12.tar", {"12": as_lists(batches[2:])})
        write(folder / "cp0_dp1__3.tar", {"3": as_lists(batches[1:2])})
    elif layout == "version 2":
        meta = {"saver": {"format_version": 2, "mbs_save": 2, "dp_size_save": 2, "gbs_save": 8}, "hash": "ab"}
        whole = {**packed(logs[:, :4], ids[:, :4]), "format_version": 2}
        write(folder / "dp0__0-4.tar", {"0-4": whole}, meta)
        write(folder / "dp0__4-6.tar", {"4-6": {**batches[2], "format_version": 2}}, meta)
        write(folder / "dp1__0-4.tar", {"0-4": batches[1]}, meta)
    else:  # rank 0 has the first and the last quarter of the sequence, rank 1 those between
        for rank, places in enumerate(([0, 1, 6, 7], [2, 3, 4, 5])):
            parts = [{name: one[places] for name, one in batch.items()} for batch in batches]
            write(folder / f"cp{rank}_dp0__3.tar", {"2": as_lists(parts[:2]), "3": as_lists(parts[2:])})
        write(folder / "cp0_dp1__3.tar", {"3": as_lists(batches[1:2])})
    assert read_megatron_meta(folder)["hash"] == "ab"
    read = list(read_megatron(folder, VOCAB))
    assert [len(rows) for _, rows in read] == [4, 2]
    assert [number for number, _ in read] == sorted(number for number, _ in read)
    windows = [rows for _, each in read for rows in each]
    summary = import_rows(
        zip(ROWS, windows, strict=True), tmp_path / "cache", vocab_size=VOCAB, k=K, name="megatron", precision="fp32"
    )
    assert summary.windows == COUNT
    expected = teacher(ROWS)
    actual = CachedTeacher(tmp_path / "cache")(ROWS)
    torch.testing.assert_close(actual.dense(), expected.dense(), rtol=5e-3, atol=1e-3)
    (other,) = [rows for _, rows in read_megatron(folder, VOCAB, data_rank=1)]
    assert torch.equal(other[0].token_ids, windows[2].token_ids)


def test_marks_and_high_bits(tmp_path: Path) -> None:
    values = torch.tensor([[[-1.0, -1000.0, -2.0]], [[-1e4, -1e4, -1e4]]], dtype=torch.bfloat16)
    ids = torch.tensor([[[65_541, -1, 1]], [[-1, -1, -1]]])
    write(tmp_path / "logits" / "cp0_dp0__0.tar", {"0": as_lists([packed(values, ids)])})
    ((_, (rows,)),) = read_megatron(tmp_path / "logits", 100_000)
    assert rows.lengths.tolist() == [2, 0]
    assert rows.token_ids.tolist() == [65_541, 1]
    assert rows.probs.tolist() == pytest.approx([np.exp(-1), np.exp(-2)])
    assert rows.tail.tolist() == pytest.approx([1 - np.exp(-1) - np.exp(-2), 1])
    assert isinstance(rows, SparseRows)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tar file in .* holds a _meta\.json"):
        list(read_megatron(tmp_path, VOCAB))
    with pytest.raises(InputError, match="none can't be read"):
        list(read_megatron(tmp_path / "none", VOCAB))
    with pytest.raises(InputError, match="ids of 17 bits"):
        list(read_megatron(tmp_path, 200_000))
    path = tmp_path / "logits" / "cp0_dp0__0.tar"
    fine = packed(torch.zeros(2, 1, 2).log_softmax(-1), torch.ones(2, 1, 2, dtype=torch.int64))
    write(path, {"0": {"values": torch.zeros(2, 1, 2)}})
    with pytest.raises(InputError, match=r"holds values: torch.float32 \(2, 1, 2\); expected"):
        list(read_megatron(path.parent, VOCAB))
    write(path, {"0": {**as_lists([fine, fine]), "bit_17": [fine["bit_17"]]}})
    with pytest.raises(InputError, match=r"bit_17: \[torch.bool \(2, 1, 2\)\]; expected"):
        list(read_megatron(path.parent, VOCAB))
    write(path, {"0": fine})
    with pytest.raises(InputError, match="holds no file of dp3"):
        list(read_megatron(path.parent, VOCAB, data_rank=3))
    write(path.with_name("cp1_dp0__0.tar"), {"1": fine})
    with pytest.raises(InputError, match=r"cp1_dp0__0\.tar lacks iteration 0, which cp0_dp0__0\.tar has"):
        list(read_megatron(path.parent, VOCAB))
    odd = {name: one[:1] for name, one in fine.items()}
    write(path.with_name("cp1_dp0__0.tar"), {"0": odd})
    with pytest.raises(InputError, match="same even number of positions"):
        list(read_megatron(path.parent, VOCAB))
    path.with_name("cp1_dp0__0.tar").unlink()
    write(path, {"0": fine}, {"saver": {"format_version": 3}})
    with pytest.raises(InputError, match="is of version 3: versions 1 and 2 are read"):
        list(read_megatron(path.parent, VOCAB))
    path.write_bytes(b"no tar")
    with pytest.raises(InputError, match="can't be read as a tar file"):
        list(read_megatron(path.parent, VOCAB))
    with tarfile.open(path, "w") as archive:
        put(archive, "_meta.json", b"{}")
        put(archive, "0.pt.zst", b"none")
    with pytest.raises(InputError, match=r"0.pt.zst can't be read"):
        list(read_megatron(path.parent, VOCAB))
