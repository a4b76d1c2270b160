"""The corpus teacher in the loops of transformers, TRL and Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from corpus_index import build_index
from torch.utils.data import DataLoader

from corpus_teacher import CorpusTeacher
from corpus_teacher.adapters import TeachingModule, TeachingTrainer
from corpus_teacher.data import ByteTokenizer, TokenWindows
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.losses import blended_cross_entropy, label_smoothing_cross_entropy, shift_labels
from corpus_teacher.teacher import TeacherCollator

from .neural_models import VOCAB, make_model

TOKENS = np.random.default_rng(0).integers(1, VOCAB, 4000)
PAD = VOCAB - 1


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> CorpusTeacher:
    path = tmp_path_factory.mktemp("adapters") / "index"
    build_index(TOKENS % (VOCAB - 1), path, vocab_size=VOCAB - 1)  # the padding token is unknown to the index
    return CorpusTeacher(path, leave_out=None, max_order=2)


class Logged:
    """What a LightningModule offers of logging."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def log_dict(self, values: dict[str, torch.Tensor], batch_size: int) -> None:
        assert batch_size == 2
        self.told |= {name: float(value) for name, value in values.items()}


def test_steps_of_a_module(teacher: CorpusTeacher) -> None:
    class Student(TeachingModule, Logged):
        student = make_model()
        corpus_weight = 0.25

    batch = TeacherCollator(teacher)([TOKENS[:9] % PAD, TOKENS[9:18] % PAD])
    module, labels = Student(), shift_labels(batch["labels"])
    logits = module.student(batch["input_ids"]).logits
    expected = blended_cross_entropy(logits, labels, batch["soft_targets"], corpus_weight=0.25)

    loss = module.training_step(batch, 0)

    assert loss.requires_grad
    assert loss.item() == pytest.approx(expected.loss.item())
    names = ("loss", "hard_nats", "corpus_nats")
    assert module.told == {name: pytest.approx(part.item()) for name, part in zip(names, expected, strict=True)}
    del batch["soft_targets"]
    assert module.validation_step(batch, 0).item() == pytest.approx(
        label_smoothing_cross_entropy(logits, labels).item()
    )
    with pytest.raises(InputError, match=r"no soft_targets: give the loader TeacherCollator\(teacher\)"):
        module.training_step(batch, 0)


class Padded:
    """Examples of several lengths, padded on the right as SFTTrainer pads them, the first tokens without a label."""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(example["input_ids"]) for example in examples)
        ids = torch.full((len(examples), longest), PAD)
        labels = torch.full_like(ids, -100)
        for row, example in enumerate(examples):
            size = len(example["input_ids"])
            ids[row, :size] = torch.tensor(example["input_ids"])
            labels[row, 2:size] = ids[row, 2:size]
        return {"input_ids": ids, "labels": labels, "attention_mask": (ids != PAD).long()}


class Taught(TeachingTrainer, transformers.Trainer):
    pass


def arguments(folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": 3, "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        "logging_steps": 1, "learning_rate": 1e-2, "save_strategy": "no", "dataloader_pin_memory": False, **settings,
    }  # fmt: skip


def examples() -> list[dict[str, list[int]]]:
    return [{"input_ids": (TOKENS[lo : lo + 4 + lo % 5] % PAD).tolist()} for lo in range(0, 240, 10)]


def losses_of(folder: Path, teacher: CorpusTeacher, **settings: Any) -> list[float]:
    trainer = Taught(
        make_model(),
        transformers.TrainingArguments(**arguments(folder, **settings)),
        train_dataset=examples(),
        data_collator=Padded(),
        corpus_teacher=teacher,
        corpus_weight=0.5,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_loss_of_a_trainer(tmp_path: Path, teacher: CorpusTeacher) -> None:
    trainer = Taught(
        make_model().train(),
        transformers.TrainingArguments(**arguments(tmp_path)),
        data_collator=Padded(),
        corpus_teacher=teacher,
        corpus_weight=0.5,
    )
    batch = Padded()(examples()[:4])
    logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    total, counted = 0.0, 0
    for row, example in enumerate(examples()[:4]):  # each row alone, without padding
        ids = torch.tensor([example["input_ids"]])
        labels = shift_labels(ids)
        labels[:, :1] = -100
        targets = teacher(ids, starts_document=True)
        told = blended_cross_entropy(logits[row : row + 1, : ids.shape[1]], labels, targets, reduction="sum")
        total, counted = total + told.loss.item(), counted + int((labels != -100).sum())
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert loss.item() == pytest.approx(total / counted, rel=1e-5)
    torch.testing.assert_close(outputs.logits, logits)
    assert trainer.compute_loss(trainer.model, batch, num_items_in_batch=10).item() == pytest.approx(
        total / 10, rel=1e-5
    )
    trainer.model.eval()
    plain = label_smoothing_cross_entropy(logits, shift_labels(batch["labels"])).item()
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(plain, rel=1e-5)


def test_accumulation_gives_the_losses_of_one_batch(tmp_path: Path, teacher: CorpusTeacher) -> None:
    one = losses_of(tmp_path, teacher, per_device_train_batch_size=4)
    two = losses_of(tmp_path, teacher, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert one == pytest.approx(two, rel=1e-4)
    assert len(set(one)) == 3


def test_settings_that_dont_fit(teacher: CorpusTeacher) -> None:
    with pytest.raises(ConfigError, match="corpus_weight is 2: give a number from 0 to 1"):
        Taught(corpus_teacher=teacher, corpus_weight=2)
    document = CorpusTeacher(teacher.index, leave_out="document")
    with pytest.raises(ConfigError, match="leaves documents out, and these batches don't tell theirs"):
        Taught(corpus_teacher=document)


@pytest.mark.filterwarnings("ignore")  # of another project
def test_lightning(tmp_path: Path, teacher: CorpusTeacher) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install lightning")

    class Student(TeachingModule, lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.student = make_model()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    windows = TokenWindows(TOKENS % PAD, 16, limit=12)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0,
    )  # fmt: skip
    module = Student()
    before = module.student.lm_head.weight.detach().clone()
    trainer.fit(
        module,
        DataLoader(windows, batch_size=4, collate_fn=TeacherCollator(teacher)),
        DataLoader(windows, batch_size=4, collate_fn=TeacherCollator()),
    )
    assert trainer.global_step == 6
    assert {"loss", "hard_nats", "corpus_nats", "held_out_nats"} <= trainer.callback_metrics.keys()
    assert not torch.equal(module.student.lm_head.weight, before)


@pytest.mark.filterwarnings("ignore")  # of another project
def test_trl(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")
    datasets = pytest.importorskip("datasets")
    words = ByteTokenizer()
    build_index(words.encode("the cat sat on the mat. " * 40), tmp_path / "index", vocab_size=257)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words.backend, eos_token="<|endoftext|>")
    tokenizer.pad_token = tokenizer.eos_token

    class Taught(TeachingTrainer, trl.SFTTrainer):
        pass

    rows = [{"prompt": "the cat", "completion": " sat" + " on" * number} for number in range(1, 13)]
    trainer = Taught(
        make_model(vocab_size=257),
        trl.SFTConfig(**arguments(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=1)),
        train_dataset=datasets.Dataset.from_list(rows),
        eval_dataset=datasets.Dataset.from_list(rows[:4]),
        processing_class=tokenizer,
        corpus_teacher=CorpusTeacher(tmp_path / "index", leave_out=None),
    )
    before = trainer.model.lm_head.weight.detach().clone()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert not torch.equal(trainer.model.lm_head.weight, before)
    assert 0 < trainer.evaluate()["eval_loss"] < 7
