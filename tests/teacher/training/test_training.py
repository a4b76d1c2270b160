"""The trainer: equal starts, exact resume, token-weighted accumulation, honest evaluation."""

from __future__ import annotations

import json
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from corpus_index import build_index

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.on_policy import OnPolicy
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import (
    DistillationCollator,
    DistillationConfig,
    TrainingResult,
    finish,
    make_student,
    train_student,
)
from tests.warm import run_ranks

pytestmark = pytest.mark.slow

VOCAB, LENGTH = 24, 16
STUDENT = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}


SETTINGS = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "warmup_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "logging_steps": 3,
    "learning_rate": 1e-2,
    "use_cpu": True,
}
ARMS = {
    "hard": {"alpha": 0.0},
    "corpus": {},
    "label-smoothing": {"alpha": 0.0, "label_smoothing_factor": 0.1},
    "unigram smoothing": {"alpha": 0.0, "label_smoothing_factor": 0.1, "smooth_with": "unigram"},
    "reverse KL": {"beta": 1.0},
    "permuted": {"control": "permuted"},
    "matched": {"control": "smoothed-uniform"},
    "matched unigrams": {"control": "smoothed-unigram"},
    "policy": {"policy": {"corpus": {"weight": 0.5, "schedule": {"kind": "linear", "end_step": 6}}}},
    "distinct": {"policy": {"corpus": {"weight": 0.9, "evidence": [{"by": "distinct", "low": 1, "high": 3}]}}},
    "mixed": {"form": "mixed"},
    "fused": {"fused": True},
}


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """A chain in which a token is mostly followed by one of two others."""
    generator = np.random.default_rng(0)
    chain = [1]
    for _ in range(3000):
        chain.append(int((chain[-1] * 5 + generator.choice([1, 7], p=[0.8, 0.2])) % VOCAB))
    return np.array(chain, dtype=np.uint16)


@pytest.fixture(scope="module")
def teacher(tokens: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> CorpusTeacher:
    path = tmp_path_factory.mktemp("training") / "index"
    return CorpusTeacher(build_index(tokens[:2500], path, vocab_size=VOCAB), max_order=2)


class Recorder(transformers.TrainerCallback):
    """Remembers the batches; may end the run like a kill."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.kill_after = kill_after

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.kill_after:
            raise KeyboardInterrupt


class PartlyLabelled(TokenWindows):
    """Windows of which some have three labels, and others all."""

    def __getitem__(self, number: int) -> dict[str, Any]:
        window = super().__getitem__(number)
        labels = window["input_ids"].copy()
        if number % 3:
            labels[:-3] = -100
        return {**window, "labels": labels}


def run(tokens: np.ndarray, corpus: CorpusTeacher, out: Path, **options: Any) -> TrainingResult:
    own = (
        "resume", "callbacks", "held_out_bytes", "progress", "neural_teacher", "self_teacher", "on_policy", "form",
        "teacher", "student",
    )  # fmt: skip
    windows = options.pop("windows", TokenWindows)
    passed = {name: options.pop(name) for name in own if name in options}
    return train_student(
        DistillationConfig(str(out), **{**SETTINGS, **options}),
        passed.pop("student", None) or make_student(STUDENT, vocab_size=VOCAB),
        windows(tokens[:2500], LENGTH),
        TokenWindows(tokens[2500:], LENGTH, shuffle=False),
        **{"teacher": corpus, **passed},
    )


@pytest.mark.parametrize("arm", sorted(ARMS))
def test_every_arm_learns(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, arm: str) -> None:
    told: list[int] = []
    result = run(
        tokens, teacher, tmp_path, max_steps=40, eval_steps=20, held_out_bytes=465,
        progress=lambda step, loss: told.append(step), **ARMS[arm],
    )  # fmt: skip
    assert told == list(range(1, 41))
    assert [point["tokens"] for point in result.history] == [20 * 64, 40 * 64]
    assert result.held_out_nats < result.history[0]["held_out_nats"] < math.log(VOCAB)
    windows = 501 // LENGTH  # one byte a predicted token makes bits per byte those of a token
    assert result.bits_per_byte == pytest.approx(result.held_out_nats / math.log(2) * windows * (LENGTH - 1) / 465)
    assert result.tokens == 40 * 64
    assert result.tokens_per_s * result.seconds == pytest.approx(40 * 64)
    assert (result.teacher_share > 0) == (result.teacher_s > 0) == (ARMS[arm].get("alpha") != 0)
    assert result.loader_s < result.seconds
    described = json.loads((tmp_path / "training.json").read_text())
    assert described["alpha"] == ARMS[arm].get("alpha", 0.5)
    assert bool(described["teacher"]) == (ARMS[arm].get("alpha") != 0)


def test_evaluation_is_on_the_data_whatever_the_arm(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    student = make_student(STUDENT, vocab_size=VOCAB)
    held_out = TokenWindows(tokens[2500:], LENGTH, shuffle=False)
    config = DistillationConfig(str(tmp_path), alpha=1.0, max_steps=3, per_device_train_batch_size=4, use_cpu=True)
    result = train_student(config, student, TokenWindows(tokens, LENGTH), held_out, teacher=teacher)
    rows = torch.from_numpy(np.stack([held_out[i]["input_ids"] for i in range(len(held_out))]))
    with torch.no_grad():
        logits = student(input_ids=rows).logits
    expected = F.cross_entropy(logits[:, :-1].reshape(-1, VOCAB), rows[:, 1:].reshape(-1))
    assert result.held_out_nats == pytest.approx(float(expected), abs=1e-5)
    assert len(result.history) == 1


def test_arms_share_weights_and_data_order(
    tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corpus_teacher.training import DistillationTrainer

    seen: dict[str, list[torch.Tensor]] = {}
    weights: dict[str, float] = {}
    plain = DistillationTrainer.get_batch_samples

    def spy(self: DistillationTrainer, *args: Any) -> Any:
        arm = Path(self.args.output_dir).name
        if arm not in weights:
            weights[arm] = float(sum(p.detach().double().sum() for p in self.model.parameters()))
        batches, counted = plain(self, *args)
        seen.setdefault(arm, []).extend(batch["input_ids"].clone() for batch in batches)
        return batches, counted

    monkeypatch.setattr(DistillationTrainer, "get_batch_samples", spy)
    for arm in ("hard", "corpus", "label-smoothing"):
        run(tokens, teacher, tmp_path / arm, **ARMS[arm])
    assert len(set(weights.values())) == 1
    assert len(seen["hard"]) == 6
    for arm in ("corpus", "label-smoothing"):
        assert all(torch.equal(a, b) for a, b in zip(seen["hard"], seen[arm], strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_resume_is_exact(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, num_workers: int) -> None:
    whole = run(tokens, teacher, tmp_path / "whole", dataloader_num_workers=num_workers)
    options = {"save_strategy": "steps", "save_steps": 4, "dataloader_num_workers": num_workers}
    with pytest.raises(KeyboardInterrupt):
        run(tokens, teacher, tmp_path / "killed", callbacks=[Recorder(kill_after=4)], **options)
    resumed = run(tokens, teacher, tmp_path / "killed", resume=True, **options)
    assert resumed.held_out_nats == whole.held_out_nats
    assert resumed.history == whole.history
    if num_workers:
        assert whole.teacher_share == whole.loader_s / whole.seconds


def test_accumulation_is_weighted_by_tokens(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    # plain descent, since Adam blows the rounding of small gradients up
    options = {"learning_rate": 0.5, "optim": "sgd", "windows": PartlyLabelled}
    whole = run(tokens, teacher, tmp_path / "whole", **options)
    options |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    parts = run(tokens, teacher, tmp_path / "parts", **options)
    assert parts.tokens == whole.tokens
    assert parts.held_out_nats == pytest.approx(whole.held_out_nats, abs=1e-5)
    for name in ("loss", "hard_nats", "corpus_nats"):
        assert parts.logs[-1][name] == pytest.approx(whole.logs[-1][name], abs=1e-4)


def test_labels_of_windows_count(tokens: np.ndarray, teacher: CorpusTeacher) -> None:
    """The mean over tokens is another one than the mean over rows: else the test above couldn't fail."""
    windows = PartlyLabelled(tokens[:2500], LENGTH)
    batch = DistillationCollator(teacher)([windows[number] for number in range(4)])
    counted = (batch["labels"][:, 1:] != -100).sum(1)
    assert counted.tolist() == [LENGTH - 1, 3, 3, LENGTH - 1]
    with pytest.raises(InputError, match=r"labels of a window have none and its input_ids shape \(16,\)"):
        DistillationCollator()([windows[0], TokenWindows(tokens, LENGTH)[0]])
    with pytest.raises(InputError, match=r"labels of a window have shape \(2,\)"):
        DistillationCollator()([{"input_ids": np.arange(LENGTH), "labels": np.arange(2)}])


def test_targets_are_made_in_a_thread_ahead(tokens: np.ndarray, teacher: CorpusTeacher) -> None:
    windows = TokenWindows(tokens[:2500], LENGTH)
    threads: list[str] = []

    def cached(ids: torch.Tensor) -> Any:
        threads.append(threading.current_thread().name)
        return teacher(ids)

    rows = [windows[number] for number in range(4)]
    collator = DistillationCollator(teacher, cached=cached, distinct=True, permute=True, ahead=True)
    batch, expected = collator(rows), DistillationCollator(teacher, cached=cached, distinct=True, permute=True)(rows)
    assert set(batch) == {"input_ids", "labels", "taught"}
    actual = finish(batch)
    assert set(actual) == set(expected)
    assert threads[0].startswith("teacher") != threads[1].startswith("teacher")
    for name in ("soft_targets", "neural_targets"):
        assert torch.equal(actual[name].dense(), expected[name].dense())
    assert torch.equal(actual["distinct"], expected["distinct"])
    assert finish(expected) is expected
    collator = DistillationCollator(teacher, ahead=True)
    collator(rows)
    again = finish(pickle.loads(pickle.dumps(collator))(rows))  # to spawned workers it goes without its thread
    assert torch.equal(again["soft_targets"].dense(), teacher(again["input_ids"]).dense())


def test_what_a_teacher_refuses_ends_the_training(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    unknown = tokens.copy()
    unknown[64:] = VOCAB - 1
    document = CorpusTeacher(teacher.index, max_order=2, leave_out="document")
    with pytest.raises(InputError, match="isn't what the index holds at position"):
        run(unknown, document, tmp_path)


@pytest.mark.parametrize("options", [{"gradient_accumulation_steps": 2}, {"form": "mixed"}, {"control": "permuted"}])
def test_ahead_or_in_workers_is_the_same(
    tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, options: dict[str, Any]
) -> None:
    one = run(tokens, teacher, tmp_path / "thread", **options)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("teacher")]
    other = run(tokens, teacher, tmp_path / "worker", dataloader_num_workers=1, **options)
    assert one.history == other.history


def test_loss_parts_are_logged(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    first = run(tokens, teacher, tmp_path, alpha=0.25).logs[0]
    blend = 0.75 * first["hard_nats"] + 0.25 * first["corpus_nats"]
    assert first["loss"] == pytest.approx(blend, abs=1e-3)
    assert first["weight_corpus"] == pytest.approx(0.25)
    assert first["share_corpus"] == 1.0
    assert 0 < first["teacher_entropy"] < math.log(VOCAB)
    assert first["teacher_share"] > 0
    assert 0 < first["loader_share"] < 1


_TWO_PROCESSES = """
import json, os, sys
import numpy as np
import torch
from corpus_teacher.data import TokenWindows
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import DistillationConfig, make_student, train_student

index, tokens, out, student, options, batch = sys.argv[1:]
tokens = np.load(tokens)

class PartlyLabelled(TokenWindows):
    def __getitem__(self, number):
        window = super().__getitem__(number)
        labels = window["input_ids"].copy()
        if number % 3:
            labels[:-3] = -100
        return {**window, "labels": labels}

result = train_student(
    DistillationConfig(out, **json.loads(options), per_device_train_batch_size=int(batch)),
    make_student(json.loads(student), vocab_size=24),
    PartlyLabelled(tokens[:2500], 16),
    TokenWindows(tokens[2500:], 16, shuffle=False),
    teacher=CorpusTeacher(index, max_order=2),
)
if os.environ["RANK"] == "0":
    logs = [result.logs[-1][name] for name in ("corpus_nats", "hard_nats", "weight_corpus", "teacher_entropy")]
    print("nats", json.dumps([result.tokens, *logs, *[point["held_out_nats"] for point in result.history]]))
torch.distributed.destroy_process_group()  # else its threads may outlive the interpreter, which aborts
"""


@pytest.mark.parametrize("changes", [{}, {"fused": True}], ids=["plain", "fused"])
def test_two_processes_are_one_big_batch(
    tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, changes: dict[str, Any]
) -> None:
    (tmp_path / "script.py").write_text(_TWO_PROCESSES)
    np.save(tmp_path / "tokens.npy", tokens)
    options: dict[str, Any] = {**SETTINGS, "learning_rate": 0.5, "optim": "sgd", **changes}
    del options["per_device_train_batch_size"]
    arguments = [
        teacher.index.path,
        tmp_path / "tokens.npy",
        tmp_path / "two",
        json.dumps(STUDENT),
        json.dumps(options),
    ]
    ranks = run_ranks(2, tmp_path / "script.py", *arguments, 4)
    assert all(rank.returncode == 0 for rank in ranks), [rank.stderr for rank in ranks]
    printed = next(line for line in ranks[0].stdout.splitlines() if line.startswith("nats "))
    options |= {"windows": PartlyLabelled, "per_device_train_batch_size": 8}
    whole = run(tokens, teacher, tmp_path / "one", **options)
    logs = [whole.logs[-1][name] for name in ("corpus_nats", "hard_nats", "weight_corpus", "teacher_entropy")]
    expected = [whole.tokens, *logs, *[point["held_out_nats"] for point in whole.history]]
    assert json.loads(printed.removeprefix("nats ")) == pytest.approx(expected, abs=1e-5)


def test_any_causal_model() -> None:
    settings = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}
    student = make_student(settings, vocab_size=VOCAB, seed=3)
    assert student.config.vocab_size == VOCAB
    again = make_student(settings, vocab_size=VOCAB, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))
    config = transformers.LlamaConfig(**{k: v for k, v in STUDENT.items() if k != "model_type"})
    assert make_student(config, vocab_size=VOCAB).config.model_type == "llama"


def test_wrong_settings_are_named(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    for settings, message in (
        ({"alpha": 2}, "alpha is 2"),
        ({"beta": -1}, "beta is -1"),
        ({"temperature": 0}, "temperature is 0"),
        ({"control": "permutd"}, "did you mean 'permuted'"),
        ({"smooth_with": "bigram"}, "smooth_with is 'bigram'"),
        ({"policy": {"corpse": 0.5}}, "no key 'corpse': did you mean 'corpus'"),
        ({"policy": {"corpus": 0.5}, "beta": 0.5}, "beta is 0.5 and there is a policy"),
        ({"control": "smoothed-uniform", "beta": 0.5}, "leave one of them out"),
    ):
        with pytest.raises(ConfigError, match=message):
            DistillationConfig(str(tmp_path), **settings)  # type: ignore[arg-type]
    for settings, message in (
        ({"label_smoothing_factor": 0.1}, "there are soft targets"),
        ({"policy": {"neural": 0.5}}, "needs the teacher 'neural'"),
        ({"fused": True, "policy": {"corpus": 0.5, "routing": {"by": "student"}}}, "set fused to false"),
        ({"alpha": 0.0, "on_policy": OnPolicy(prompt_len=4)}, "no teacher to score"),
        ({"neural_teacher": lambda ids: ids, "beta": 0.5}, "a divergence has one"),
        ({"teacher": None, "control": "permuted"}, "no corpus teacher to stand in for"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(tokens, teacher, tmp_path / "wrong", **settings)
    with pytest.raises(ConfigError, match="no student can be made"):
        make_student({"model_type": "lama"}, vocab_size=VOCAB)
    with pytest.raises(ConfigError, match="156 windows to train on and a batch takes 999"):
        run(tokens, teacher, tmp_path / "none", per_device_train_batch_size=999)
    small = make_student(STUDENT, vocab_size=VOCAB - 1)
    with pytest.raises(ConfigError, match=f"index has {VOCAB} tokens and the student only {VOCAB - 1}"):
        run(tokens, teacher, tmp_path, student=small)


@pytest.mark.parametrize("way", ["corpus", "reverse KL", "label-smoothing", "policy", "bf16"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_fused_is_plain(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, way: str, model_type: str) -> None:
    options = {"bf16": True} if way == "bf16" else ARMS[way]
    gpt2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    losses = []
    for fused in (False, True):
        student = make_student(STUDENT if model_type == "llama" else gpt2, vocab_size=VOCAB)
        result = run(tokens, teacher, tmp_path / str(fused), student=student, fused=fused, **options)
        losses.append([result.logs[0]["loss"], *(point["held_out_nats"] for point in result.history)])
    assert losses[1] == pytest.approx(losses[0], abs=2e-2 if way == "bf16" else 1e-4)


def test_tensorboard_is_told(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard isn't installed: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tokens, teacher, tmp_path, report_to="tensorboard")
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    told = EventAccumulator(str(events.parent))
    told.Reload()
    names = {"hard_nats", "corpus_nats", "share_corpus", "weight_hard", "teacher_entropy", "loader_share", "loss"}
    assert {f"train/{name}" for name in names} <= set(told.Tags()["scalars"])
