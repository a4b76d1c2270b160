"""The corpus teacher in other trainers' files: read back, and equal to the dense distributions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
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
    assert [number for number, _ in read] == [0, 1, 2]
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


@pytest.mark.parametrize("format", ["verl", "tinker"])
def test_rows_in_parquet(teacher: CorpusTeacher, path: Path, tmp_path: Path, format: str) -> None:
    export_targets(teacher, [str(path)], tmp_path / "v.parquet", format=format, k=K, length=LENGTH)
    windows, dense = windows_of(teacher)
    table = pq.read_table(tmp_path / "v.parquet").to_pydict()
    assert np.array_equal(table["input_ids"], windows)
    ids, logs = np.array(table["teacher_ids"]), np.array(table["teacher_logprobs"])
    assert ids.shape == logs.shape == (10, LENGTH, K)
    begin = 0
    if format == "tinker":
        assert (ids[:, 0] == 0).all()
        assert (logs[:, 0] == NOTHING).all()
        begin = 1
    for number, expected in enumerate(dense):
        check(ids[number, begin:], np.exp(logs[number, begin:]), expected[: LENGTH - begin], 1e-4)


@pytest.mark.live
@pytest.mark.filterwarnings("ignore")
def test_megatron_itself_reads_it(
    teacher: CorpusTeacher, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "Megatron-LM's training package isn't importable: clone it into PYTHONPATH (Python 3.12, triton)"
    theirs = pytest.importorskip("megatron.training.distillation.cached_logits_loss", reason=why, exc_type=ImportError)
    _, dense = windows_of(teacher)
    monkeypatch.setattr(theirs, "compute_dataset_hash", lambda: ("ab12", {}))
    monkeypatch.setattr(theirs, "print_rank_0", print)
    how: dict[str, Any] = {"format": "megatron", "k": K, "length": LENGTH, "rows": 5}
    export_targets(teacher, [str(path)], tmp_path / "m", dataset_hash="ab12", **how)
    for start in (0, 1):  # a run that resumes finds its own iteration
        read = list(_first(theirs.TeacherTarDataset(str(tmp_path / "m"), 0, 0, 1, start), 2 - start))
        for number, (values, ids) in enumerate(read, start):
            assert len(values) == len(ids) == 1
            assert values[0].shape == ids[0].shape == (LENGTH, 5, K)
            logits = torch.randn(LENGTH, 5, VOCAB)
            loss = theirs.topk_kl_div(logits.clone(), values[0], ids[0], 1, 0, None)
            for row in range(5):
                said = dense[5 * number + row]
                check(ids[0][:, row].numpy(), values[0][:, row].float().exp().numpy(), said, 5e-3)
                top = -np.sort(-said, axis=1)[:, :K]
                log_q = logits[:, row].log_softmax(-1).gather(1, ids[0][:, row]).numpy()
                assert np.allclose(loss[row].numpy(), (top * (np.log(top) - log_q)).sum(1), atol=2e-2)
    export_targets(teacher, [str(path)], tmp_path / "n", **how)
    with pytest.raises(RuntimeError, match="hash ab12"):
        list(_first(theirs.TeacherTarDataset(str(tmp_path / "n"), 0, 0, 1), 1))


def _first(data: Any, count: int) -> Any:
    return itertools.islice(iter(data), count)


@pytest.mark.live
@pytest.mark.filterwarnings("ignore")
def test_distillkit_itself_reads_it(teacher: CorpusTeacher, path: Path, tmp_path: Path) -> None:
    why = "DistillKit isn't installed: pip install its repository"
    signals = pytest.importorskip("distillkit.signals", reason=why, exc_type=ImportError)
    compression = pytest.importorskip("distillkit.compression", reason=why)
    losses = pytest.importorskip("distillkit.lossfuncs", reason=why)
    datasets = pytest.importorskip("datasets")
    export_targets(teacher, [str(path)], tmp_path / "d.parquet", format="distillkit", k=K, length=LENGTH)
    said = json.loads(pq.read_schema(tmp_path / "d.parquet").metadata[b"corpus_teacher"])["columns"]
    assert ColumnFormat(**said) == ColumnFormat(VOCAB, K)  # all k exact, in bfloat16
    table = {"d": VOCAB, "k": K, "exact_k": K, "exact_dtype": "bfloat16"}
    table |= {"delta_encoding": False, "residual_bins": []}
    kit = compression.LogprobCompressor(compression.DistributionQuantizationConfig(**table))
    source = signals.OfflineSignalSource(kit, VOCAB)
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "d.parquet"), cache_dir=str(tmp_path / "c"))
    windows, dense = windows_of(teacher)
    batch = {name: torch.tensor(value) for name, value in rows["train"][:].items()}
    assert np.array_equal(batch["input_ids"].numpy(), windows)
    signal = source.get_signal(batch)
    assert signal.log_values
    for number, expected in enumerate(dense):
        check(signal.sparse_ids[number].numpy(), signal.sparse_values[number].float().exp().numpy(), expected, 3e-2)
    logits = torch.randn(len(windows), LENGTH, VOCAB)
    output = SimpleNamespace(logits=logits)
    loss = losses.KLDLoss(temperature=1.0, missing_probability_handling="zero")(output, signal, mask=None)
    assert torch.isfinite(torch.as_tensor(loss)).all()


@pytest.mark.live
@pytest.mark.filterwarnings("ignore")
def test_verl_itself_reads_it(teacher: CorpusTeacher, path: Path, tmp_path: Path) -> None:
    why = "verl isn't installed: pip install --no-deps verl tensordict, and what they import"
    losses = pytest.importorskip("verl.trainer.distillation.fsdp.losses", reason=why, exc_type=ImportError)
    padding = pytest.importorskip("verl.workers.utils.padding", reason=why, exc_type=ImportError)
    tensordict = pytest.importorskip("tensordict", reason=why)
    export_targets(teacher, [str(path)], tmp_path / "v.parquet", format="verl", k=K, length=LENGTH)
    table = pq.read_table(tmp_path / "v.parquet").to_pydict()
    windows, dense = windows_of(teacher)
    count = len(windows)
    whole = torch.ones(count, LENGTH, dtype=torch.int64)
    data = tensordict.TensorDict(
        {
            "input_ids": torch.tensor(table["input_ids"]),
            "attention_mask": whole,
            "response_mask": whole,
            "position_ids": torch.arange(LENGTH).expand(count, LENGTH),
            "teacher_ids": torch.tensor(table["teacher_ids"]),
            "teacher_logprobs": torch.tensor(table["teacher_logprobs"]),
        },
        batch_size=count,
    )
    data = padding.left_right_2_no_padding(data)
    logits = torch.randn(1, count * LENGTH, VOCAB)
    config = SimpleNamespace(distillation_loss=SimpleNamespace(log_prob_min_clamp=None))
    told = losses.compute_forward_kl_topk(logits, data["teacher_logprobs"], data["teacher_ids"], config, "thd")
    loss = next(value for name, value in told.items() if "loss" in name).reshape(count, LENGTH)
    log_q = logits.log_softmax(-1).reshape(count, LENGTH, VOCAB).numpy()
    for number, expected in enumerate(dense):
        ids = np.array(table["teacher_ids"])[number]
        top, log_p = np.take_along_axis(expected, ids, 1), np.take_along_axis(log_q[number], ids, 1)
        assert np.allclose(loss[number].numpy(), (top * (np.log(top) - log_p)).sum(1), atol=1e-4)


@pytest.mark.live
def test_tinker_itself_reads_it(teacher: CorpusTeacher, path: Path, tmp_path: Path) -> None:
    theirs = pytest.importorskip("tinker.types.topk_logprobs", reason="tinker isn't installed: pip install tinker")
    export_targets(teacher, [str(path)], tmp_path / "t.parquet", format="tinker", k=K, length=LENGTH)
    table = pq.read_table(tmp_path / "t.parquet").to_pydict()
    _, dense = windows_of(teacher)
    for number, expected in enumerate(dense):
        columns = np.array(table["teacher_ids"][number], np.int32), np.array(table["teacher_logprobs"][number])
        told = theirs.topk_to_lists(
            theirs.TopkLogprobs(
                *(column.astype(kind) for column, kind in zip(columns, (np.int32, np.float32), strict=True))
            )
        )
        assert told[0] is None
        ids, logs = (np.array([[pair[place] for pair in row] for row in told[1:]]) for place in (0, 1))
        check(ids, np.exp(logs), expected[:-1], 1e-4)


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
