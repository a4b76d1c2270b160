"""Muon for the matrices, AdamW for the rest: both steps, one optimizer, and a training with it that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from corpus_teacher.errors import ConfigError
from corpus_teacher.training import DistillationConfig, make_student
from corpus_teacher.training.muon import MuonWithAdamW, matrices_of

from .test_resume import Trained, place, same, settings_of

__all__ = ["place"]  # the fixture

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def taught(model: torch.nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 3) -> dict[str, torch.Tensor]:
    ids = torch.arange(20).view(2, 10)
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        for one in optimizers:
            one.step()
        model.zero_grad()
    return {name: one.detach().clone() for name, one in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_equals_both_optimizers_on_their_own_parts(tied: bool) -> None:
    one, other = (make_student({**SMALL, "tie_word_embeddings": tied}, vocab_size=20) for _ in range(2))
    together = MuonWithAdamW(one, outside=["lm_head"], decayed=["model.embed_tokens.weight"], lr=0.01, weight_decay=0.5)
    matrices = [name for name, value in other.named_parameters() if "proj" in name and value.ndim == 2]
    assert list(matrices_of(other, ["lm_head"])) == matrices
    assert len(matrices) == 7
    values = dict(other.named_parameters())
    muon = torch.optim.Muon(
        [values[name] for name in matrices], lr=0.01, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"
    )
    decayed = values["model.embed_tokens.weight"]
    rest = [value for name, value in values.items() if name not in matrices and value is not decayed]
    groups = [{"params": [decayed], "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    found, expected = taught(one, together), taught(other, muon, adamw)
    assert {name for name in found if not torch.equal(found[name], expected[name])} == set()


def test_a_scheduler_reaches_both_after_loading_too() -> None:
    model = make_student(SMALL, vocab_size=20)
    optimizer = MuonWithAdamW(model, lr=0.01)
    taught(model, optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    after = taught(model, optimizer)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_training_goes_on_as_if_nothing_had_happened(place: Path, tmp_path: Path) -> None:
    changes = {"student": {"model_type": "qwen3", "head_dim": 8}, "training": {"muon": True}}
    whole = Trained(settings_of(place, tmp_path / "whole", **changes))
    settings = settings_of(place, tmp_path / "run", **changes)
    Trained(settings, kill_after=5)
    same(Trained(settings, resume=True), whole)
    plain = Trained(settings_of(place, tmp_path / "plain", student=changes["student"]))
    assert plain.result is not None
    assert whole.result is not None
    assert plain.result.held_out_nats != whole.result.held_out_nats


def test_what_muon_can_t_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="optim is 'sgd'"):
        DistillationConfig(str(tmp_path), use_cpu=True, muon=True, optim="sgd")
    with pytest.raises(ConfigError, match=r"no torch\.nn\.Linear"):
        MuonWithAdamW(torch.nn.Embedding(3, 4), lr=0.1)
