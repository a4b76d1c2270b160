"""One kind of thing: whatever teaches is called alike, tells its vocabulary and describes itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import build_index

from corpus_teacher.blend import Components, apply_policy, blend, blended_loss, evidence, make_policy
from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError, TargetError
from corpus_teacher.neural import CachedTeacher, EmaTeacher, NeuralTeacher, TargetFormat, write_cache
from corpus_teacher.targets import DenseTargets
from corpus_teacher.teacher import EVIDENCE, CorpusTeacher
from corpus_teacher.teaching import FunctionTeacher, Teacher, Teachers, as_teacher
from corpus_teacher.training import DistillationConfig, make_student, train_student

from .neural_models import VOCAB, make_model

LENGTH = 8
STUDENT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(3).integers(0, VOCAB, 400).astype(np.uint16)


@pytest.fixture(scope="module")
def corpus(tokens: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> CorpusTeacher:
    path = tmp_path_factory.mktemp("teaching") / "index"
    return CorpusTeacher(build_index(tokens, path, vocab_size=VOCAB), max_order=2, leave_out="self")


@pytest.fixture(scope="module")
def every(tokens: np.ndarray, corpus: CorpusTeacher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = make_model()
    folder = tmp_path_factory.mktemp("caches")
    live = NeuralTeacher(model, kept=TargetFormat("all"))
    windows = TokenWindows(tokens, LENGTH, shuffle=False)
    for kept in (TargetFormat("top-k", k=4), TargetFormat("hidden", precision="fp32")):
        write_cache(live, windows, folder / kept.kind, kept=kept)
    return {
        "corpus": corpus,
        "live, all": live,
        "live, top-k": NeuralTeacher(model, kept=TargetFormat("top-k", k=4)),
        "live, hidden": NeuralTeacher(model, kept=TargetFormat("hidden")),
        "cached, top-k": CachedTeacher(folder / "top-k"),
        "cached, all": CachedTeacher(folder / "hidden", kept=TargetFormat("all")),
        "average": EmaTeacher(make_student(STUDENT, vocab_size=VOCAB), kept=TargetFormat("all")),
        "a method": as_teacher(live.logits),
        "a function": as_teacher(lambda ids: torch.zeros(*ids.shape, VOCAB)),
    }


def test_all_are_the_same_kind_of_thing(every: dict[str, Any], tokens: np.ndarray) -> None:
    rows = torch.from_numpy(tokens[: 3 * LENGTH].astype(np.int64)).reshape(3, LENGTH)
    for name, teacher in every.items():
        assert isinstance(teacher, Teacher), name
        said = teacher(rows, starts_document=np.array([True, False, False]), positions=np.arange(3) * LENGTH)
        assert said.num_positions == rows.numel(), name
        assert said.vocab_size == VOCAB, name
        assert teacher.vocab_size == (None if name == "a function" else VOCAB)
        assert json.dumps(teacher.describe()), name
        assert said.to("cpu").num_positions == rows.numel()
    assert isinstance(every["live, all"](rows), DenseTargets)
    assert every["live, all"].describe()["kind"] == "all"
    assert every["a method"].describe()["asked"] == "NeuralTeacher.logits"
    for name in ("cached, all", "a method"):
        torch.testing.assert_close(every[name](rows).logits, every["live, all"](rows).logits)


def test_windows_that_a_cache_lacks_are_not_valid(every: dict[str, Any], tokens: np.ndarray) -> None:
    rows = torch.from_numpy(tokens[: 2 * LENGTH].astype(np.int64)).reshape(2, LENGTH).flip(1)
    rows[0] = torch.from_numpy(tokens[:LENGTH].astype(np.int64))
    cache = CachedTeacher(every["cached, all"].path, kept=TargetFormat("all"), missing="invalid")
    said = cache(rows)
    assert said.valid.tolist() == [True] * LENGTH + [False] * LENGTH
    torch.testing.assert_close(said.logits[:LENGTH], every["live, all"](rows[:1]).logits)


def test_a_cache_keeps_no_logits(every: dict[str, Any], tokens: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a cache can't keep 'all': give one of top-k"):
        write_cache(every["live, all"], TokenWindows(tokens, LENGTH), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_three_travel_as_one(every: dict[str, Any]) -> None:
    three = Teachers(every["corpus"], every["live, all"].logits)
    assert three.names == {"corpus", "neural"}
    assert isinstance(three.neural, FunctionTeacher)
    assert three.neural.owner is every["live, all"]
    assert three.vocab_size == VOCAB
    assert three.only(frozenset({"neural"})).names == {"neural"}
    assert three.describe()["corpus"]["leave_out"] == "self"
    with pytest.raises(ConfigError, match="neural teacher is a int: give a CorpusTeacher"):
        Teachers(neural=3)


def test_components_are_all_that_a_loss_needs(every: dict[str, Any], tokens: np.ndarray) -> None:
    rows = torch.from_numpy(tokens[: 2 * LENGTH].astype(np.int64)).reshape(2, LENGTH)
    logits, labels = torch.randn(2, LENGTH, VOCAB, generator=torch.Generator().manual_seed(0)), rows.roll(-1, 1)
    corpus, neural = every["corpus"](rows), every["live, all"](rows)
    policy = make_policy({"corpus": 0.3, "neural": 0.3})
    known = Components(labels, corpus, neural)
    one = blended_loss(logits, known, blend(policy, 0, known)).loss
    other = apply_policy(policy, 0, logits, labels, corpus=corpus, neural=neural).loss
    assert torch.equal(one, other)
    assert torch.equal(apply_policy(policy, 0, logits, known).loss, other)
    with pytest.raises(TargetError, match="teachers beside them"):
        apply_policy(policy, 0, logits, known, corpus=corpus)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_new_evidence_is_a_row_and_a_word(
    corpus: CorpusTeacher, tokens: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """A row of the teacher's table and a word of the policies' list: nothing between them knows of it."""
    asked: list[int] = []

    def parity(teacher: CorpusTeacher, ids: Any, following: Any = None, **options: Any) -> torch.Tensor:
        rows = ids["input_ids"] if isinstance(ids, Mapping) else ids  # as a teacher is called
        asked.append(len(rows))
        return torch.as_tensor(np.asarray(rows)).reshape(-1) % 2

    monkeypatch.setitem(EVIDENCE, "parity", parity)
    monkeypatch.setattr(evidence, "CARRIED", ("distinct", "parity"))
    monkeypatch.setitem(evidence.MEASURES, "parity", evidence.carried("parity"))
    result = train_student(
        DistillationConfig(
            str(tmp_path), max_steps=2, per_device_train_batch_size=2, use_cpu=True, logging_steps=1,
            dataloader_num_workers=num_workers,
            policy={"corpus": {"weight": 1.0, "evidence": [{"by": "parity", "low": 0, "high": 1}]}},
        ),
        make_student(STUDENT, vocab_size=VOCAB),
        TokenWindows(tokens, LENGTH),
        TokenWindows(tokens, LENGTH, shuffle=False),
        teacher=corpus,
    )  # fmt: skip
    assert asked or num_workers
    assert 0.1 < result.logs[0]["weight_corpus"] < 0.9
    assert result.logs[0]["weight_corpus"] + result.logs[0]["weight_hard"] == pytest.approx(1)


def test_what_no_teacher_can_tell_is_named(corpus: CorpusTeacher, tokens: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="no evidence 'luck': give one of distinct"):
        corpus.evidence(["luck"], tokens[:8].astype(np.int64))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(every: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the device 'cuda' isn't there .*: give 'cpu', or leave it out"):
        NeuralTeacher(make_model(), device="cuda", kept=TargetFormat("all"))
    with pytest.raises(ConfigError, match="the device 'cuda:3' isn't there"):
        CachedTeacher(every["cached, top-k"].path, device="cuda:3")
    with pytest.raises(ConfigError, match="the device 'gpu' isn't there"):
        NeuralTeacher("nowhere", device="gpu")
