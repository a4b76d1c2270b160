"""The corpus teacher in the loops of transformers, TRL and Lightning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from corpus_index import CorpusIndex, build_index
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

    class Base:
        def __init__(self, **settings: Any) -> None:
            self.args = SimpleNamespace(**settings)

    class Packed(TeachingTrainer, Base):
        pass

    for strategy in ("wrapped", "bfd_split"):
        options = {"packing": True, "packing_strategy": strategy, "corpus_teacher": teacher}
        with pytest.raises(ConfigError, match=f"packing_strategy '{strategy}' cuts examples.*starts_document=False"):
            Packed(**options)
        Packed(**options, starts_document=False)
    Packed(packing=True, packing_strategy="bfd", corpus_teacher=teacher)
    Packed(packing=False, packing_strategy="wrapped", corpus_teacher=teacher)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    path = tmp_path_factory.mktemp("adapters") / "documents"
    return build_index(TOKENS, path, doc_starts=np.arange(0, 4001, 500), vocab_size=VOCAB)


class Noted(transformers.Trainer):
    """A user's own trainer, at transformers' defaults."""

    seen: list[dict[str, Any]]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
        self.seen.append(dict(inputs))
        logits, labels = model(input_ids=inputs["input_ids"]).logits, shift_labels(inputs["labels"])
        return blended_cross_entropy(logits, labels, inputs["soft_targets"]).loss


@pytest.mark.parametrize("kind", ["windows", "dataset"])
@pytest.mark.parametrize("form", ["flat", "mixed"])
def test_documents_are_left_out_at_a_trainers_defaults(
    tmp_path: Path, documents: CorpusIndex, kind: str, form: str
) -> None:
    """remove_unused_columns drops the position of a window, which once made "auto" leave self out, silently."""
    windows = TokenWindows(TOKENS, 48, doc_starts=documents.doc_starts, limit=12)
    rows: Any = windows
    if kind == "dataset":
        rows = pytest.importorskip("datasets").Dataset.from_list([windows[number] for number in range(12)])
    settings = transformers.TrainingArguments(**arguments(tmp_path, per_device_train_batch_size=4))
    assert settings.remove_unused_columns
    teacher = CorpusTeacher(documents, strict=True)
    trainer = Noted(make_model(), settings, train_dataset=rows, data_collator=TeacherCollator(teacher, form))
    trainer.seen = []
    trainer.train()
    places = {windows[number]["input_ids"].tobytes(): windows[number] for number in range(12)}
    for batch in trainer.seen:
        told = [places[row.numpy().tobytes()] for row in batch["input_ids"]]
        expected = CorpusTeacher(documents, leave_out="document")(
            batch["input_ids"],
            positions=[window["position"] for window in told],
            starts_document=[window["starts_document"] for window in told],
        )
        torch.testing.assert_close(batch["soft_targets"].dense(), expected.dense(), atol=2e-6, rtol=1e-4)
        assert torch.equal(batch["soft_targets"].valid, expected.valid)
    assert len(trainer.seen) == 3


def test_columns_stay_for_the_collator(tmp_path: Path, documents: CorpusIndex) -> None:
    """A trainer with the mixin keeps what the collator reads: here of text that stands twice, and of own labels."""
    datasets = pytest.importorskip("datasets")
    position = 600
    ids = TOKENS[position : position + 4]  # too short to be found
    rows = [{"input_ids": ids, "position": position, "labels": [-100, -100, *ids[2:]], "note": "mine"}] * 4

    class Kept(Taught):
        seen: list[dict[str, Any]]

        def teach(self, model: Any, inputs: Any) -> Any:
            self.seen.append(dict(inputs))
            return super().teach(model, inputs)

    teacher = CorpusTeacher(documents, strict=True)
    trainer = Kept(
        make_model(),
        transformers.TrainingArguments(**arguments(tmp_path, per_device_train_batch_size=2)),
        train_dataset=datasets.Dataset.from_list(rows),
        eval_dataset=datasets.Dataset.from_list(rows),
        data_collator=TeacherCollator(teacher, pad_to_multiple_of=8),
        corpus_teacher=teacher,
    )
    trainer.seen = []
    trainer.train()
    batch = trainer.seen[0]
    assert batch["labels"].tolist() == [[-100, -100, *ids[2:].tolist(), *[-100] * 4]] * 2
    assert batch["attention_mask"].tolist() == [[1] * 4 + [0] * 4] * 2
    expected = CorpusTeacher(documents, leave_out="document")([ids], positions=[position])
    torch.testing.assert_close(batch["soft_targets"].dense()[:4], expected.dense())
    assert 0 < trainer.evaluate()["eval_loss"] < 9


@pytest.mark.parametrize("options", [{}, {"split_batches": True}, {"dispatch_batches": True}])
def test_accelerate(documents: CorpusIndex, options: dict[str, bool]) -> None:
    accelerate = pytest.importorskip("accelerate")
    windows = TokenWindows(TOKENS, 40, doc_starts=documents.doc_starts, limit=8)
    loader = DataLoader(windows, batch_size=4, collate_fn=TeacherCollator(CorpusTeacher(documents, strict=True)))
    plain = list(loader)
    accelerator = accelerate.Accelerator(
        cpu=True, dataloader_config=accelerate.utils.DataLoaderConfiguration(**options)
    )
    prepared = list(accelerator.prepare(loader))
    assert len(prepared) == len(plain) == 2
    for batch, expected in zip(prepared, plain, strict=True):
        assert torch.equal(batch["soft_targets"].dense(), expected["soft_targets"].dense())


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


@pytest.mark.filterwarnings("ignore")  # of another project
@pytest.mark.parametrize(
    "settings",
    [{"packing": True, "max_length": 24}, {"padding_free": True, "max_length": None}, {"max_length": 24},
     {"packing": True, "packing_strategy": "wrapped", "max_length": 24}],
)  # fmt: skip
def test_trl_packs(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Rows that TRL packs or flattens: the target at a token is that of its example alone."""
    trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")
    datasets = pytest.importorskip("datasets")
    words = ByteTokenizer()
    build_index(words.encode("the cat sat on the mat. " * 40), tmp_path / "index", vocab_size=257)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words.backend, eos_token="<|endoftext|>")
    tokenizer.pad_token = tokenizer.eos_token
    end = tokenizer.eos_token_id
    wrapped = settings.get("packing_strategy") == "wrapped"

    class Taught(TeachingTrainer, trl.SFTTrainer):
        seen: list[tuple[dict[str, Any], Any]]

        def _ask(self, inputs: Any) -> Any:
            targets = super()._ask(inputs)
            self.seen.append((dict(inputs), targets))
            return targets

    teacher = CorpusTeacher(tmp_path / "index", leave_out=None, max_order=3)
    texts = ["the cat", "a mat", "on the mat sat", "cat"] * 6
    trainer = Taught(
        make_model(vocab_size=257),
        trl.SFTConfig(**arguments(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=1, **settings)),
        train_dataset=datasets.Dataset.from_list([{"text": text} for text in texts]),
        processing_class=tokenizer,
        corpus_teacher=teacher,
        starts_document=not wrapped,
    )
    trainer.seen = []
    trainer.train()
    assert len(trainer.seen) == 3
    for inputs, targets in trainer.seen:
        ids, dense, found = inputs["input_ids"], targets.dense().reshape(*inputs["input_ids"].shape, -1), 0
        for row in range(ids.shape[0]):
            begin = 0
            for t in range(ids.shape[1]):
                if ids[row, t] != end and t + 1 < ids.shape[1]:
                    continue
                piece = ids[row, begin : t + 1]
                if len(piece) > 1:  # else padding
                    known = not (wrapped and begin == 0)
                    alone = teacher(piece, starts_document=known).dense()
                    torch.testing.assert_close(dense[row, begin : t + 1], alone, atol=1e-6, rtol=1e-4)
                    found += 1
                begin = t + 1
        assert found > 0
