"""Quantisation-aware distillation: a student of few bits recovers what rounding cost it.

Rounding weights to few bits loses nats. In quantisation-aware training the forward pass computes with the rounded
weights while the optimizer keeps the full ones, and the gradient passes the rounding as if it weren't there
(straight-through: Bengio, Léonard and Courville 2013, arXiv:1308.3432). Distilled, the loss is KL(full-precision start
‖ student) on any text and not the cross-entropy to it: what is wanted is the start's behaviour, not another round of
training (arXiv:2601.20088, "QAD", there for NVFP4)::

    teacher = NeuralTeacher(copy.deepcopy(student))       # before the student is changed, in place
    fake_quantize(student, weights="int4")
    …                                                     # train on KL(teacher ‖ student)
    convert(student)                                      # integers in place of the weights

torchao does the rounding: symmetric integers, one scale for each group of `group_size` weights of a row; activations,
where they are asked for, with one scale and zero point a token, chosen on the spot.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from typing import Any

import torch

from corpus_teacher.errors import ConfigError

WEIGHTS = ("int8", "int4", "int3", "int2")
ACTIVATIONS = (None, "int8")


def fake_quantize(
    model: Any,
    weights: str = "int4",
    activations: str | None = None,
    group_size: int | None = 32,
    *,
    exclude: Collection[str] = (),
) -> list[str]:
    """Make the linear layers of a student compute with rounded weights, in place, and stay trainable.

    Parameters
    ----------
    model : PreTrainedModel
        Its parameters stay what they are: an optimizer made before goes on.
    weights : {"int8", "int4", "int3", "int2"}
    activations : {None, "int8"}
        Also round what goes into each layer.
    group_size : int, optional
        Weights of a row that share a scale; None: all of the row.
    exclude : collection of str
        Names of modules, with all inside them, that stay as they are ("model.layers.0"). Embeddings and the lm_head
        stay in any case: they are tied in many models, and cost the most to round.

    Returns
    -------
    list of str
        The names of the layers.

    Raises
    ------
    ConfigError
        torchao isn't installed, a setting out of range, a name that isn't there, no layer to round, or one whose rows
        don't fall into groups; the model is then as it was.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"weights is {weights!r}: give one of {', '.join(WEIGHTS)}")
    if activations not in ACTIVATIONS:
        raise ConfigError(f"activations is {activations!r}: give 'int8', or None to leave them as they are")
    if group_size is not None and group_size < 2:
        raise ConfigError(f"group_size is {group_size!r}: give at least 2 weights a scale, or None for one scale a row")
    check_torchao()
    from torchao.quantization.qat import QATConfig

    names = _layers(model, exclude)
    for name in names:
        width = model.get_submodule(name).in_features
        if group_size is not None and width % group_size:
            raise ConfigError(
                f"the rows of {name} have {width} weights, no multiple of group_size {group_size}: "
                "give one that divides it, or None, or exclude the layer"
            )
    _swap(model, QATConfig(_base(weights, activations, group_size), step="prepare"), names)
    return names


def convert(model: Any) -> list[str]:
    """Replace the weights of a fake-quantised student by their integers and scales, in place, for inference.

    Parameters
    ----------
    model : PreTrainedModel
        What `fake_quantize` prepared. It gives the same logits as before, up to the order of sums.

    Returns
    -------
    list of str
        The names of the layers.

    Raises
    ------
    ConfigError
        torchao isn't installed, or no layer was prepared.

    Notes
    -----
    The integers of every type are held a byte each, which every device can read; torchao's packed layouts, of two int4
    a byte, belong to the kernels of one device each.
    """
    check_torchao()
    from torchao.quantization.qat import FakeQuantizedLinear, QATConfig

    prepared = {name: module for name, module in model.named_modules() if isinstance(module, FakeQuantizedLinear)}
    if not prepared:
        raise ConfigError(f"{type(model).__name__} has no fake-quantised layer to convert: call fake_quantize first")
    first = next(iter(prepared.values()))
    rounding = first.weight_fake_quantizer.config
    width = str(rounding.dtype).removeprefix("torch.")
    activations = None if first.activation_fake_quantizer is None else "int8"
    base = _base(width, activations, getattr(rounding.granularity, "group_size", None))
    _swap(model, QATConfig(base, step="convert"), list(prepared))
    return list(prepared)


def check_torchao() -> None:
    """Refuse where torchao isn't installed."""
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError("quantisation needs torchao, not installed: pip install torchao, or corpus-teacher[qat]")


def _layers(model: Any, exclude: Collection[str]) -> list[str]:
    """Names of the linear layers to round."""
    from torchao.quantization.qat import FakeQuantizedLinear

    modules = dict(model.named_modules())
    for name in exclude:
        if name not in modules:
            raise ConfigError(f"there is no module {name!r} to exclude: give names such as {_an_example(modules)!r}")
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    names = []
    for name, module in modules.items():
        if isinstance(module, FakeQuantizedLinear):
            raise ConfigError(f"{name} is fake-quantised already: load the student again to round it otherwise")
        inside = any(name == outer or name.startswith(f"{outer}.") for outer in exclude)
        if isinstance(module, torch.nn.Linear) and module is not head and not inside:
            names.append(name)
    if not names:
        raise ConfigError(f"{type(model).__name__} has no linear layer to round: torch.nn.Linear only, but the lm_head")
    return names


def _an_example(modules: Mapping[str, torch.nn.Module]) -> str:
    linear = [name for name, module in modules.items() if isinstance(module, torch.nn.Linear)]
    return (linear or list(modules))[0]


def _base(weights: str, activations: str | None, group_size: int | None) -> Any:
    """torchao's settings of the rounding that the student is to be converted with."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis, PerGroup

    width = getattr(torch, weights)
    shared = PerAxis(0) if group_size is None else PerGroup(group_size)
    if activations is None:
        return IntxWeightOnlyConfig(weight_dtype=width, granularity=shared)
    return Int8DynamicActivationIntxWeightConfig(weight_dtype=width, weight_granularity=shared)


def _swap(model: Any, config: Any, names: Collection[str]) -> None:
    """Let torchao replace modules, which keep their mode."""
    from torchao.quantization import quantize_

    modes = {name: model.get_submodule(name).training for name in names}
    quantize_(model, config, filter_fn=lambda _, name: name in modes)
    for name, training in modes.items():
        model.get_submodule(name).train(training)
