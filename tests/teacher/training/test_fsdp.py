"""Parameters that two processes hold parts of: the same losses, gradients and checkpoints as of one process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import build_index

from tests.warm import run_ranks, run_warm

_SCRIPT = """
import json, os, sys
import numpy as np
import torch
from accelerate import state
from accelerate.utils import DistributedType

plain = state.AcceleratorState.__init__

def on_cpus(self, *args, fsdp_plugin=None, **options):
    # accelerate takes FSDP on accelerators only; torch shards over gloo as well
    plain(self, *args, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

state.AcceleratorState.__init__ = on_cpus

import transformers
from torch.distributed.tensor import DTensor
from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import DistillationConfig, DistillationTrainer, make_student

index, tokens, out, options = sys.argv[1:]
tokens, options = np.load(tokens), json.loads(options)
sharded: list[float] = []

class Look(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, model=None, **kwargs):
        parameters = list(model.parameters())
        assert all(isinstance(one, DTensor) for one in parameters) == bool(args.fsdp)
        local = [one.to_local() if args.fsdp else one for one in parameters]
        sharded.append(sum(one.numel() for one in local) / sum(one.numel() for one in parameters))

def made(path, **more):
    student = make_student({
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
    }, vocab_size=24)
    settings = {"max_steps": 4, "optim": "sgd", "learning_rate": 0.5, "logging_steps": 1, "use_cpu": True}
    return DistillationTrainer(
        student, DistillationConfig(path, **settings, **more),
        teacher=CorpusTeacher(index, max_order=2), train_dataset=TokenWindows(tokens, 16),
        eval_dataset=TokenWindows(tokens, 16, shuffle=False, limit=8), callbacks=[Look()],
    )

trainer = made(out, **options)
trainer.train()
told = {
    "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    "held_out": trainer.evaluate()["eval_loss"],
    "sharded": sharded[0],
}
if os.environ.get("RANK", "0") == "0":
    print("told", json.dumps(told))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fsdp")
    tokens = np.random.default_rng(0).integers(0, 24, 900).astype(np.uint16)
    build_index(tokens, folder / "index", vocab_size=24).close()
    np.save(folder / "tokens.npy", tokens)
    (folder / "script.py").write_text(_SCRIPT)
    return folder


def told_of(place: Path, out: Path, processes: int, **options: Any) -> dict[str, Any]:
    arguments = (place / "script.py", place / "index", place / "tokens.npy", out, json.dumps(options))
    sharded = {"ACCELERATE_USE_FSDP": "true" if options.get("fsdp") else "false"}
    if processes == 1:
        ranks = [run_warm(*arguments, env={**os.environ, **sharded})]
    else:
        ranks = run_ranks(processes, *arguments, **sharded)
    assert all(rank.returncode == 0 for rank in ranks), [rank.stderr[-4000:] for rank in ranks]
    line = next(line for line in ranks[0].stdout.splitlines() if line.startswith("told "))
    told: dict[str, Any] = json.loads(line.removeprefix("told "))
    return told


@pytest.fixture(scope="module")
def alone(place: Path) -> dict[str, Any]:
    return told_of(place, place / "alone", 1, per_device_train_batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [1, 2])
def test_sharded_is_whole(place: Path, tmp_path: Path, alone: dict[str, Any], accumulated: int) -> None:
    told = told_of(
        place, tmp_path, 2, per_device_train_batch_size=4 // accumulated, gradient_accumulation_steps=accumulated,
        fsdp="full_shard",
        fsdp_config={"version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
                     "cpu_ram_efficient_loading": False},
    )  # fmt: skip
    assert told["sharded"] == pytest.approx(0.5, abs=0.05)
    assert alone["sharded"] == 1
    assert told["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert told["held_out"] == pytest.approx(alone["held_out"], abs=1e-4)
