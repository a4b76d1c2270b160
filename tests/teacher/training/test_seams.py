"""Where a trainer meets what its users bring: other collators, metrics, paths, experts, adapters, small tables."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from corpus_index import build_index

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError
from corpus_teacher.neural import EmaTeacher, TargetFormat, write_cache
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import DistillationConfig, DistillationTrainer, make_student
from corpus_teacher.training.student import complete_student

VOCAB, LENGTH = 24, 16
STUDENT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, 600).astype(np.uint16)


@pytest.fixture(scope="module")
def index(tokens: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seams") / "index"
    build_index(tokens, path, vocab_size=VOCAB).close()
    return path


def trainer(tokens: np.ndarray, out: Path, *, student: Any = None, args: Any = None, **options: Any) -> Any:
    settings = {name: options.pop(name) for name in list(options) if name in DistillationConfig.__dataclass_fields__}
    config = args or DistillationConfig(
        str(out), max_steps=2, per_device_train_batch_size=4, use_cpu=True, logging_steps=1, **settings
    )
    return DistillationTrainer(
        student or make_student(STUDENT, vocab_size=VOCAB),
        config,
        train_dataset=options.pop("train_dataset", TokenWindows(tokens, LENGTH)),
        eval_dataset=TokenWindows(tokens, LENGTH, shuffle=False, limit=6),
        **options,
    )


def losses(made: Any) -> list[float]:
    made.train()
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def test_paths_are_opened(tokens: np.ndarray, index: Path, tmp_path: Path) -> None:
    by_path = trainer(tokens, tmp_path, teacher=str(index))
    assert isinstance(by_path.teacher, CorpusTeacher)
    model = make_student(STUDENT, vocab_size=VOCAB, seed=3)
    model.save_pretrained(tmp_path / "model")
    live = trainer(tokens, tmp_path, neural_teacher=tmp_path / "model")
    assert live.teachers.neural.kept.kind == "all"
    write_cache(live.teachers.neural, TokenWindows(tokens, LENGTH), tmp_path / "cache", kept=TargetFormat("top-k", k=4))
    assert trainer(tokens, tmp_path, neural_teacher=str(tmp_path / "cache")).teachers.neural.is_stored


def test_what_cannot_be_is_refused(tokens: np.ndarray, index: Path, tmp_path: Path) -> None:
    plain = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ConfigError, match="args is a TrainingArguments: give a DistillationConfig"):
        trainer(tokens, tmp_path, args=plain, teacher=index)
    with pytest.raises(ConfigError, match="remove_unused_columns is True"):
        DistillationConfig(str(tmp_path), remove_unused_columns=True)
    later = DistillationConfig(str(tmp_path), use_cpu=True)
    later.remove_unused_columns = True
    with pytest.raises(ConfigError, match="remove_unused_columns is True"):
        trainer(tokens, tmp_path, args=later, teacher=index)
    with pytest.raises(ConfigError, match="fsdp is set and the training runs on CPUs"):
        DistillationConfig(str(tmp_path), fsdp="full_shard", use_cpu=True)
    with pytest.raises(ConfigError, match="the batches have no labels"):
        trainer(
            tokens, tmp_path, teacher=index,
            data_collator=lambda rows: {"input_ids": torch.from_numpy(np.stack([row["input_ids"] for row in rows]))},
        ).train()  # fmt: skip
    config = DistillationConfig(str(tmp_path), use_cpu=True)
    config.fsdp = ["full_shard"]
    average = EmaTeacher(make_student(STUDENT, vocab_size=VOCAB), kept=TargetFormat("all"))
    with pytest.raises(ConfigError, match="fsdp holds parts of the student"):
        trainer(tokens, tmp_path, args=config, self_teacher=average)


@pytest.mark.parametrize("options", [{}, {"form": "mixed"}, {"fused": True}])
def test_batches_of_another_collator_are_taught(
    tokens: np.ndarray, index: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    expected = losses(trainer(tokens, tmp_path, teacher=CorpusTeacher(index, leave_out="self"), **options))
    actual = losses(
        trainer(
            tokens, tmp_path, teacher=CorpusTeacher(index, leave_out="self"),
            data_collator=lambda rows: {
                name: torch.from_numpy(np.stack([row["input_ids"] for row in rows])) for name in ("input_ids", "labels")
            },
            **options,
        )
    )  # fmt: skip
    assert actual == pytest.approx(expected, abs=2e-2)  # windows begin documents or don't
    assert abs(actual[0] - np.log(VOCAB)) > 1e-6


def test_padding_on_either_side_is_no_context(tokens: np.ndarray, index: Path, tmp_path: Path) -> None:
    def padded(left: int, right: int) -> Any:
        def collate(rows: Any) -> dict[str, Any]:
            ids = torch.from_numpy(np.stack([row["input_ids"][3:] for row in rows]))
            mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
            ids = torch.nn.functional.pad(ids, (left, right), value=5)
            note = ["a column that no model knows"] * len(rows)
            learnt = (mask > 0) & (mask.cumsum(1) > 1)  # padding predicts nothing
            return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(learnt, ids, -100), "note": note}

        return collate

    on_the_left, on_the_right = (
        losses(trainer(tokens, tmp_path, teacher=CorpusTeacher(index, leave_out="self"), data_collator=collate))
        for collate in (padded(3, 0), padded(0, 3))
    )
    assert on_the_left == pytest.approx(on_the_right, rel=1e-4)


def test_metrics_are_called(tokens: np.ndarray, index: Path, tmp_path: Path) -> None:
    shapes: list[Any] = []

    def accuracy(told: Any) -> dict[str, float]:
        shapes.append((told.predictions.shape, told.label_ids.shape))
        right = told.predictions[:, :-1].argmax(-1) == told.label_ids[:, 1:]
        return {"accuracy": float(right.mean())}

    made = trainer(tokens, tmp_path, teacher=index, compute_metrics=accuracy)
    made.train()
    told = made.evaluate()
    assert shapes == [((6, LENGTH, VOCAB), (6, LENGTH))]
    assert 0 <= told["eval_accuracy"] <= 1
    assert told["eval_loss"] > 0


@pytest.mark.parametrize("fused", [False, True])
def test_experts_keep_their_balance(tokens: np.ndarray, index: Path, tmp_path: Path, fused: bool) -> None:
    def first(coefficient: float, **options: Any) -> tuple[float, dict[str, float]]:
        student = make_student(
            {
                "model_type": "mixtral", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 1,
                "max_position_embeddings": 32, "output_router_logits": True, "router_aux_loss_coef": coefficient,
            },
            vocab_size=VOCAB,
        )  # fmt: skip
        made = trainer(tokens, tmp_path, student=student, teacher=index, fused=fused, **options)
        made.train()
        log = next(entry for entry in made.state.log_history if "loss" in entry)
        return log["loss"], log

    without, _ = first(0.0)
    with_it, log = first(10.0)
    assert with_it - without == pytest.approx(10 * log["router_loss"], rel=1e-3)
    assert log["router_loss"] >= 0.9  # 1 where experts are used alike
    if not fused:
        parts, _ = first(10.0, gradient_accumulation_steps=2)
        assert parts == pytest.approx(with_it, rel=0.05)  # a mean of the passes, not their sum


def test_checkpointed_gradients_are_the_same(tokens: np.ndarray, index: Path, tmp_path: Path) -> None:
    expected = losses(trainer(tokens, tmp_path, teacher=index))
    new = "activation_checkpointing" in DistillationConfig.__dataclass_fields__  # transformers 5.2x renamed it
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    for options in ({}, {"fused": True}):
        actual = losses(trainer(tokens, tmp_path, teacher=index, **{name: True}, **options))
        assert actual == pytest.approx(expected, abs=1e-5)


def test_rows_of_like_lengths_together(tokens: np.ndarray, index: Path, tmp_path: Path) -> None:
    """Ragged rows, padded by a collator of the user's, in batches of like lengths."""
    rows = [{"input_ids": tokens[n : n + 4 + n % 9].astype(np.int64)} for n in range(400)]
    widths: list[int] = []
    spreads: list[int] = []

    def collate(some: Any) -> dict[str, torch.Tensor]:
        lengths = [len(row["input_ids"]) for row in some]
        widths.append(max(lengths))
        spreads.append(max(lengths) - min(lengths))
        ids = torch.zeros(len(some), widths[-1], dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(some):
            ids[number, : len(row["input_ids"])] = torch.from_numpy(row["input_ids"])
            mask[number, : len(row["input_ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask.bool(), ids, -100)}

    new = "train_sampling_strategy" in DistillationConfig.__dataclass_fields__
    strategy: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if new else {"group_by_length": True}
    made = trainer(
        tokens, tmp_path, teacher=CorpusTeacher(index, leave_out="self"), data_collator=collate, train_dataset=rows,
        **strategy,
    )  # fmt: skip
    assert all(0 < loss < 10 for loss in losses(made))
    assert max(spreads) <= 1  # there are lengths from 4 to 12


@pytest.mark.filterwarnings("default")  # of peft and transformers about each other
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft isn't installed: pip install peft")
def test_an_adapter_learns(tokens: np.ndarray, index: Path, tmp_path: Path) -> None:
    import peft

    student = peft.get_peft_model(
        make_student(STUDENT, vocab_size=VOCAB), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    )
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    made = trainer(tokens, tmp_path, student=student, teacher=index, learning_rate=1e-2)
    assert len(losses(made)) == 2
    moved = {name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_hidden_layers": 2}),
        ({"hidden_size": 64}, {"intermediate_size": 192, "num_attention_heads": 2, "num_hidden_layers": 2}),
        ({"hidden_size": 1024}, {"intermediate_size": 3072, "num_attention_heads": 16, "num_hidden_layers": 16}),
        ({"hidden_size": 96, "num_hidden_layers": 5}, {"num_attention_heads": 3, "num_hidden_layers": 5}),
        ({"num_hidden_layers": 3}, {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3}),
        ({"model_type": "gpt2", "n_embd": 64}, {"n_head": 2, "n_layer": 2, "n_inner": None}),
        ({"model_type": "qwen3", "hidden_size": 64}, {"head_dim": 32, "num_key_value_heads": 2}),
        ({"model_type": "mixtral", "hidden_size": 64}, {"num_key_value_heads": 2, "intermediate_size": 192}),
        ({"model_type": "qwen2_moe", "hidden_size": 64}, {"moe_intermediate_size": 192}),
    ],
)
def test_a_small_table_makes_a_small_student(table: dict[str, Any], expected: dict[str, Any]) -> None:
    with torch.device("meta"):
        student = make_student(table, vocab_size=VOCAB)
    told = student.config.to_dict()
    assert {name: told[name] for name in expected} == expected


def test_a_whole_table_stays_as_it_is() -> None:
    assert complete_student(STUDENT) == STUDENT
    assert complete_student({"model_type": "gpt2"}) == {"model_type": "gpt2"}
