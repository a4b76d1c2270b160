"""Quantisation-aware distillation: the grid, the gradient, the conversion, and what is lost and recovered."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import forward_kl, label_smoothing_cross_entropy, shift_labels
from corpus_teacher.neural import NeuralTeacher, TargetFormat
from corpus_teacher.quantization import convert, fake_quantize

from .neural_models import make_model

pytestmark = pytest.mark.slow

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed: pip install torchao"
)
IDS = torch.arange(24).reshape(2, 12)
FORMS = [
    ("int8", None, 8),
    ("int4", None, 8),
    ("int4", None, None),
    ("int8", "int8", None),
    ("int4", "int8", 16),
    ("int3", None, 8),
    ("int2", None, 8),
]


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def check_grid(rounded: torch.Tensor, weight: torch.Tensor, bits: int, group_size: int | None) -> None:
    """Each group of a row on the integers from −2^(bits − 1), the largest magnitude at half their range.

    (The largest is a tie between two of them, which may be rounded either way.)
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    groups = weight.reshape(-1, group_size or weight.shape[1])
    scale = groups.abs().amax(1, keepdim=True) / ((high - low) / 2)
    steps = rounded.reshape(groups.shape) / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert low - 1e-3 <= steps.min() < steps.max() <= high + 1e-3
    assert (steps - groups / scale).abs().max() <= 0.5 + 1e-3


@needs_torchao
@pytest.mark.parametrize(("weights", "activations", "group_size"), FORMS)
def test_weights_are_on_the_grid(weights: str, activations: str | None, group_size: int | None) -> None:
    start = make_model()
    student, written = copy.deepcopy(start), copy.deepcopy(start)
    names = fake_quantize(student, weights, activations, group_size)
    bits = int(weights.removeprefix("int"))
    assert "lm_head" not in names
    assert len(names) == 7  # of one layer: four of attention, three of the MLP
    assert all(torch.equal(kept, start.get_parameter(name)) for name, kept in student.named_parameters())
    for name in names:
        layer = student.get_submodule(name)
        rounded = layer.weight_fake_quantizer(layer.weight).detach()
        check_grid(rounded, layer.weight.detach(), bits, group_size)
        written.get_submodule(name).weight.data = rounded
    before = logits_of(student)
    assert (before - logits_of(start)).abs().max() > 1e-4
    if activations is None:
        torch.testing.assert_close(before, logits_of(written))
    else:
        assert (before - logits_of(written)).abs().max() > 1e-4

    assert convert(student) == names
    torch.testing.assert_close(logits_of(student), before, atol=1e-5, rtol=1e-4)
    for name in names:
        held = student.get_submodule(name).weight
        assert held.qdata.dtype == torch.int8
        check_grid(held.dequantize(), start.get_submodule(name).weight.detach(), bits, group_size)


@needs_torchao
def test_gradient_passes_through() -> None:
    start = make_model()
    student = copy.deepcopy(start)
    for layer in fake_quantize(student, "int8", None, 8):
        assert student.get_submodule(layer).weight.requires_grad
    targets = NeuralTeacher(make_model(seed=1), kept=TargetFormat(k=8))(IDS)
    for model in (start, student):
        forward_kl(model(IDS).logits, targets).backward()
    for name, parameter in student.named_parameters():
        expected = start.get_parameter(name).grad
        assert torch.cosine_similarity(parameter.grad.flatten(), expected.flatten(), 0) > 0.95


@needs_torchao
def test_modes_and_exclusions_stay() -> None:
    student = make_model().eval()
    names = fake_quantize(student, group_size=8, exclude=["model.layers.0.mlp"])
    assert len(names) == 4
    assert not any("mlp" in name for name in names)
    assert not any(module.training for module in student.modules())
    student.train()
    convert(student)
    assert all(module.training for module in student.modules())


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Callable[[int, int], torch.Tensor]]:
    """A model that knows a language in which the last two tokens together decide the next, and text of it."""
    vocab_size, steps = 16, 400
    table = torch.randn(vocab_size**2, vocab_size, generator=torch.Generator().manual_seed(0)).mul_(3).softmax(-1)

    def text(rows: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(vocab_size, (rows, 2), generator=generator)
        while ids.shape[1] < 32:
            ids = torch.cat(
                [ids, torch.multinomial(table[ids[:, -2] * vocab_size + ids[:, -1]], 1, generator=generator)], 1
            )
        return ids

    config = transformers.LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.train()
    teach(model, steps, 1e-2, text, lambda ids: label_smoothing_cross_entropy(model(ids).logits, shift_labels(ids)))
    return model.eval(), text


def teach(model: Any, steps: int, rate: float, text: Callable[[int, int], torch.Tensor], loss_of: Any) -> None:
    """AdamW whose rate falls to almost nothing."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for step in range(steps):
        loss_of(text(32, 1000 + step)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


@needs_torchao
def test_distillation_recovers_part_of_what_rounding_lost(trained: tuple[Any, Any]) -> None:
    start, text = trained
    held_out = text(128, 999)

    def judged(model: Any) -> tuple[float, float]:
        """Held-out nats a token, and KL to the full-precision start."""
        with torch.no_grad():
            logits = model(held_out).logits
            return (
                label_smoothing_cross_entropy(logits, shift_labels(held_out)).item(),
                forward_kl(logits, teacher(held_out)).item(),
            )

    teacher = NeuralTeacher(start, kept=TargetFormat("top-k", k=16))
    student = copy.deepcopy(start)
    fake_quantize(student, "int4", group_size=None)
    full, lost = judged(start), judged(student)
    teach(student, 60, 1e-3, text, lambda ids: forward_kl(student(ids).logits, teacher(ids)))
    convert(student)
    recovered = judged(student)

    # measured: 1.366, 1.385 and 1.372 nats; KL 0, 0.0166 and 0.0039
    assert full[0] < 1.5 < math.log(16)  # it has learnt something that can be lost
    assert lost[0] > full[0] + 5e-3
    assert recovered[0] < lost[0] - 0.3 * (lost[0] - full[0])
    assert abs(full[1]) < 1e-5
    assert recovered[1] < 0.5 * lost[1]


@needs_torchao
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights": "int1"}, "weights is 'int1': give one of int8, int4, int3, int2"),
        ({"activations": "int4"}, "activations is 'int4': give 'int8', or None"),
        ({"group_size": 0}, "group_size is 0: give at least 2"),
        ({"group_size": 12}, "have 16 weights, no multiple of group_size 12"),
        ({"exclude": ["layers"]}, "there is no module 'layers' to exclude: give names such as 'model.layers.0.self"),
        ({"exclude": ["model"]}, "has no linear layer to round"),
    ],
)
def test_settings_that_dont_fit(settings: dict[str, Any], says: str) -> None:
    model = make_model()
    with pytest.raises(ConfigError, match=says):
        fake_quantize(model, **{"group_size": 8, **settings})
    assert not any("Fake" in type(module).__name__ for module in model.modules())


@needs_torchao
def test_once_only() -> None:
    model = make_model()
    with pytest.raises(ConfigError, match="no fake-quantised layer to convert: call fake_quantize first"):
        convert(model)
    fake_quantize(model, group_size=8)
    with pytest.raises(ConfigError, match="q_proj is fake-quantised already"):
        fake_quantize(model, group_size=8)


def test_without_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (fake_quantize, convert):
        with pytest.raises(ConfigError, match="quantisation needs torchao, not installed: pip install torchao"):
            call(make_model())
