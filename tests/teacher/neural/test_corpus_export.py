"""The corpus teacher in other trainers' files: read back, and equal to the dense distributions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_index import build_index
from typer.testing import CliRunner

from corpus_teacher import CorpusTeacher
from corpus_teacher.cli.main import app
from corpus_teacher.errors import ConfigError, OutputError
from corpus_teacher.neural.corpus_export import NOTHING, export_targets
from corpus_teacher.neural.distillkit import read_distillkit
from corpus_teacher.neural.distillkit_format import ColumnFormat
from corpus_teacher.neural.megatron import read_megatron, read_megatron_meta
from corpus_teacher.targets.likeliest import top_rows

VOCAB, LENGTH, K = 20, 16, 5


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "index"
    tokens = np.minimum(rng.geometric(0.25, 170) - 1, VOCAB - 1)
    build_index(tokens, path, doc_starts=[0, 40, 90, 170], vocab_size=VOCAB, workers=1).close()
    return path


@pytest.fixture(scope="module")
def teacher(path: Path) -> CorpusTeacher:
    return CorpusTeacher(path, max_order=3, leave_out="self")


def windows_of(teacher: CorpusTeacher) -> tuple[np.ndarray, np.ndarray]:
    """Windows, and the dense distribution at each position, of each document's part asked alone."""
    tokens = np.asarray(teacher.index.tokens).astype(np.int64)
    starts = teacher.index.doc_starts.tolist()
    dense = np.zeros((160, VOCAB))
    for begin in range(0, 160, LENGTH):
        edges = [begin, *(start for start in starts if begin < start < begin + LENGTH), begin + LENGTH]
        for lo, hi in itertools.pairwise(edges):
            following = tokens[lo + 1 : hi + 1].copy()
            if hi in starts:
                following[-1] = -1
            said = teacher(tokens[lo:hi], following, starts_document=lo in starts)
            dense[lo:hi] = said.dense().double().numpy()
    return tokens[:160].reshape(-1, LENGTH), dense.reshape(-1, LENGTH, VOCAB)


def check(ids: np.ndarray, probs: np.ndarray, dense: np.ndarray, rtol: float) -> None:
    """(Q, k) against (Q, V)."""
    assert np.allclose(probs, np.take_along_axis(dense, ids, 1), rtol=rtol, atol=1e-6)
    assert np.allclose(probs, -np.sort(-dense, axis=1)[:, : ids.shape[1]], rtol=rtol, atol=1e-6)


def test_megatron(teacher: CorpusTeacher, path: Path, tmp_path: Path) -> None:
    told = export_targets(teacher, [str(path)], tmp_path / "m", format="megatron", k=K, length=LENGTH, rows=4)
    windows, dense = windows_of(teacher)
    assert (told.windows, told.k) == (10, K)
    assert told.kept_mass == pytest.approx(-np.sort(-dense, axis=2)[..., :K].sum(2).mean(), abs=1e-4)
    assert read_megatron_meta(tmp_path / "m")["saver"]["k"] == K
    read = list(read_megatron(tmp_path / "m", VOCAB))
    assert [number for number, _ in read] == [1, 2, 3]
    rows = [one for _, part in read for one in part]
    assert len(rows) == len(windows)
    for one, expected in zip(rows, dense, strict=True):
        check(one.token_ids.numpy().reshape(-1, K), one.probs.numpy().reshape(-1, K), expected, 5e-3)


def test_distillkit(teacher: CorpusTeacher, path: Path, tmp_path: Path) -> None:
    export_targets(teacher, [str(path)], tmp_path / "d.parquet", format="distillkit", k=K, length=LENGTH, rows=3)
    windows, dense = windows_of(teacher)
    read = list(read_distillkit(tmp_path / "d.parquet", ColumnFormat(VOCAB, k=K)))
    assert np.array_equal([ids for ids, _ in read], windows)
    for (_, one), expected in zip(read, dense, strict=True):
        check(one.token_ids.numpy().reshape(-1, K), one.probs.numpy().reshape(-1, K), expected, 3e-2)


def test_verl(teacher: CorpusTeacher, path: Path, tmp_path: Path) -> None:
    export_targets(teacher, [str(path)], tmp_path / "v.parquet", format="verl", k=K, length=LENGTH)
    windows, dense = windows_of(teacher)
    table = pq.read_table(tmp_path / "v.parquet").to_pydict()
    assert np.array_equal(table["input_ids"], windows)
    ids, logs = np.array(table["teacher_ids"]), np.array(table["teacher_logprobs"])
    assert ids.shape == logs.shape == (10, LENGTH, K)
    assert (ids[:, 0] == 0).all()
    assert (logs[:, 0] == NOTHING).all()
    for number, expected in enumerate(dense):
        check(ids[number, 1:], np.exp(logs[number, 1:]), expected[:-1], 1e-4)


def test_the_command_and_what_is_refused(teacher: CorpusTeacher, path: Path, tmp_path: Path) -> None:
    command = ["teacher", "export-targets", str(path), "--data", str(path), "-T", str(LENGTH), "--k", "3"]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, [*command, "--format", "megatron", "--out", str(out), "--leave-out", "self"])
    assert done.exit_code == 0, done.output
    assert "10 windows of 16 tokens" in done.output
    again = CliRunner().invoke(app, [*command, "--format", "megatron", "--out", str(out), "--leave-out", "self"])
    assert again.exit_code == 2
    assert "exists" in again.output
    over = [*command, "--format", "megatron", "--out", str(out), "--leave-out", "self", "--overwrite"]
    assert CliRunner().invoke(app, over).exit_code == 0
    options: dict[str, Any] = {"format": "verl", "length": LENGTH}
    with pytest.raises(ConfigError, match="torch"):
        export_targets(teacher, [str(path)], tmp_path / "x", **{**options, "format": "torch"})
    with pytest.raises(ConfigError, match="1000"):
        export_targets(teacher, [str(path)], tmp_path / "x", **{**options, "length": 1000})
    with pytest.raises(OutputError, match="exists"):
        export_targets(teacher, [str(path)], path, **options)


def test_the_top_against_all(random_targets: Any) -> None:
    for seed in range(60):
        targets = random_targets(seed, positions=6, vocab_size=9)
        dense = np.maximum(targets.dense().double().numpy(), 0)
        for k in (1, 4, 9):
            ids, probs = (part.numpy() for part in top_rows(targets, k))
            assert all(len(set(row)) == k for row in ids.tolist())
            check(ids, probs, dense, 1e-5)
