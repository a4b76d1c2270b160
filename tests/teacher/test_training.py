"""The trainer: equal starts, exact resume, token-weighted accumulation, honest evaluation."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from corpus_index import build_index

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import TrainingConfig, TrainingResult, make_student, train_student

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


def run(tokens: np.ndarray, teacher: CorpusTeacher, out: Path, **options: Any) -> TrainingResult:
    passed = {
        name: options.pop(name) for name in ("resume", "callbacks", "held_out_bytes", "progress") if name in options
    }
    settings = {"steps": 6, "batch_size": 4, "warmup_steps": 1, "eval_every": 3, "learning_rate": 1e-2}
    return train_student(
        TrainingConfig(**{**settings, **options}),
        make_student(STUDENT, vocab_size=VOCAB),
        TokenWindows(tokens[:2500], LENGTH),
        TokenWindows(tokens[2500:], LENGTH, shuffle=False),
        out,
        teacher=teacher,
        **passed,
    )


@pytest.mark.parametrize("arm", ["hard", "corpus", "label-smoothing"])
def test_every_arm_learns(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, arm: str) -> None:
    told: list[int] = []
    result = run(
        tokens, teacher, tmp_path, arm=arm, steps=40, eval_every=20, held_out_bytes=465,
        progress=lambda step, loss: told.append(step),
    )  # fmt: skip
    assert told == list(range(1, 41))
    assert [point["tokens"] for point in result.history] == [20 * 64, 40 * 64]
    assert result.held_out_nats < result.history[0]["held_out_nats"] < math.log(VOCAB)
    windows = 501 // LENGTH  # one byte a predicted token makes bits per byte those of a token
    assert result.bits_per_byte == pytest.approx(result.held_out_nats / math.log(2) * windows * (LENGTH - 1) / 465)
    assert result.tokens == 40 * 64
    assert result.tokens_per_s * result.seconds == pytest.approx(40 * 64)
    assert (result.teacher_share > 0) == (result.teacher_s > 0) == (arm == "corpus")
    assert result.loader_s < result.seconds
    described = json.loads((tmp_path / "training.json").read_text())
    assert described["arm"] == arm


def test_evaluation_is_on_the_data_whatever_the_arm(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    student = make_student(STUDENT, vocab_size=VOCAB)
    held_out = TokenWindows(tokens[2500:], LENGTH, shuffle=False)
    config = TrainingConfig(arm="corpus", corpus_weight=1.0, steps=3, batch_size=4, eval_every=0)
    result = train_student(config, student, TokenWindows(tokens, LENGTH), held_out, tmp_path, teacher=teacher)
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
        arm = self.config.arm
        if arm not in weights:
            weights[arm] = float(sum(p.detach().double().sum() for p in self.model.parameters()))
        batches, counted = plain(self, *args)
        seen.setdefault(arm, []).extend(batch["input_ids"].clone() for batch in batches)
        return batches, counted

    monkeypatch.setattr(DistillationTrainer, "get_batch_samples", spy)
    for arm in ("hard", "corpus", "label-smoothing"):
        run(tokens, teacher, tmp_path / arm, arm=arm)
    assert len(set(weights.values())) == 1
    assert len(seen["hard"]) == 6
    for arm in ("corpus", "label-smoothing"):
        assert all(torch.equal(a, b) for a, b in zip(seen["hard"], seen[arm], strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_resume_is_exact(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path, num_workers: int) -> None:
    whole = run(tokens, teacher, tmp_path / "whole", num_workers=num_workers)
    options = {"save_every": 4, "num_workers": num_workers}
    with pytest.raises(KeyboardInterrupt):
        run(tokens, teacher, tmp_path / "killed", callbacks=[Recorder(kill_after=4)], **options)
    resumed = run(tokens, teacher, tmp_path / "killed", resume=True, **options)
    assert resumed.held_out_nats == whole.held_out_nats
    assert resumed.history == whole.history
    if num_workers:
        assert whole.teacher_share == whole.loader_s / whole.seconds


def test_accumulation_is_weighted_by_tokens(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    # plain descent, since Adam blows the rounding of small gradients up
    options = {"learning_rate": 0.5, "arguments": {"optim": "sgd"}}
    whole = run(tokens, teacher, tmp_path / "whole", batch_size=4, **options)
    parts = run(tokens, teacher, tmp_path / "parts", batch_size=1, accumulation=4, **options)
    assert parts.tokens == whole.tokens
    assert parts.held_out_nats == pytest.approx(whole.held_out_nats, abs=1e-5)


def test_loss_parts_are_logged(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    logs: list[dict[str, float]] = []

    class Listener(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            heard.append(logs)

    heard = logs
    run(tokens, teacher, tmp_path, corpus_weight=0.25, callbacks=[Listener()])
    first = next(entry for entry in logs if "loss" in entry)
    blend = 0.75 * first["hard_nats"] + 0.25 * first["soft_nats"]
    assert first["loss"] == pytest.approx(blend, abs=1e-3)


_TWO_PROCESSES = """
import json, os, sys
import numpy as np
import torch
from corpus_teacher.data import TokenWindows
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import TrainingConfig, make_student, train_student

index, tokens, out, student, options, batch = sys.argv[1:]
tokens = np.load(tokens)
result = train_student(
    TrainingConfig(**json.loads(options), batch_size=int(batch)),
    make_student(json.loads(student), vocab_size=24),
    TokenWindows(tokens[:2500], 16),
    TokenWindows(tokens[2500:], 16, shuffle=False),
    out,
    teacher=CorpusTeacher(index, max_order=2),
)
if os.environ["RANK"] == "0":
    print("nats", json.dumps([result.tokens, *[point["held_out_nats"] for point in result.history]]))
torch.distributed.destroy_process_group()  # else its threads may outlive the interpreter, which aborts
"""


def test_two_processes_are_one_big_batch(tokens: np.ndarray, teacher: CorpusTeacher, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_TWO_PROCESSES)
    np.save(tmp_path / "tokens.npy", tokens)
    options = {
        "steps": 6,
        "warmup_steps": 1,
        "eval_every": 3,
        "learning_rate": 0.5,
        "arguments": {"optim": "sgd", "use_cpu": True},
    }
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python", sys.executable]
    arguments = [
        teacher.index.path,
        tmp_path / "tokens.npy",
        tmp_path / "two",
        json.dumps(STUDENT),
        json.dumps(options),
    ]
    ran = subprocess.run(
        [sys.executable, *launch, tmp_path / "script.py", *map(str, arguments), "4"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    printed = next(line for line in ran.stdout.splitlines() if line.startswith("nats "))
    whole = run(tokens, teacher, tmp_path / "one", **{**options, "batch_size": 8})
    expected = [whole.tokens, *[point["held_out_nats"] for point in whole.history]]
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
    with pytest.raises(ConfigError, match="arm is 'softly'"):
        TrainingConfig(arm="softly")
    with pytest.raises(ConfigError, match="corpus_weight is 2"):
        TrainingConfig(corpus_weight=2)
    with pytest.raises(ConfigError, match="steps is 0"):
        TrainingConfig(steps=0)
    with pytest.raises(ConfigError, match="learning_rate is 0"):
        TrainingConfig(learning_rate=0)
    with pytest.raises(ConfigError, match="no student can be made"):
        make_student({"model_type": "lama"}, vocab_size=VOCAB)
    with pytest.raises(ConfigError, match="no checkpoint under"):
        run(tokens, teacher, tmp_path / "none", resume=True)
    windows = TokenWindows(tokens, LENGTH)
    student = make_student(STUDENT, vocab_size=VOCAB)
    with pytest.raises(ConfigError, match="has no teacher"):
        train_student(TrainingConfig(), student, windows, windows, tmp_path)
    small = make_student(STUDENT, vocab_size=VOCAB - 1)
    with pytest.raises(ConfigError, match=f"index has {VOCAB} tokens and the student only {VOCAB - 1}"):
        train_student(TrainingConfig(), small, windows, windows, tmp_path, teacher=teacher)
