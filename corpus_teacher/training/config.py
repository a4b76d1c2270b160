"""How a student is distilled: transformers' TrainingArguments, and what they lack.

The names are the field's: `alpha` is the share of the soft targets, `beta` the place between forward and reverse KL,
`temperature` that of the neural teachers. What `alpha` can't say, a policy does (`corpus_teacher.blend`).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers.integrations.integration_utils import get_available_reporting_integrations

from corpus_teacher.blend import Policy, Share, in_steps, make_policy
from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_known, check_share, is_number

CONTROLS = ("permuted", "smoothed-uniform", "smoothed-unigram")
"""What may stand in for the corpus' targets, to tell what of them helps."""

_LOGGERS = ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "mlflow", "neptune", "swanlab", "tensorboard",
            "trackio", "wandb")  # fmt: skip
"""Loggers of transformers that are packages of these names."""

SOFT = ("corpus", "neural", "self")
"""The soft teachers, by the names that policies know."""


def _fsdp_by_accelerate() -> bool:
    """Whether whoever starts the processes answers for FSDP; the trainer looks whether there is any."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


@dataclass
class DistillationConfig(transformers.TrainingArguments):
    """Settings of a `DistillationTrainer`.

    All of `transformers.TrainingArguments`, some with other defaults (AdamW with betas 0.9 and 0.95, weight decay 0.1,
    learning rate 1e-3 with a cosine to 0, nothing reported, no progress bars), and these:

    Parameters
    ----------
    alpha : float
        Share of the soft targets, 0 to 1; the hard label has the rest. Several soft teachers share it equally.
    beta : float
        0: cross-entropy to the blend (the gradient of the forward KL). Above 0, up to 1, the soft part is the
        generalised Jensen–Shannon divergence to the one soft teacher, 1 being the reverse KL (as in GKD).
    temperature : float
        T of the neural teacher and of the student itself; their part is multiplied by T². Counts have none.
    policy : dict, optional
        A table of `corpus_teacher.blend.make_policy`, in place of alpha. Steps of its schedules may be shares of
        max_steps, such as "60%".
    control : {"permuted", "smoothed-uniform", "smoothed-unigram"}, optional
        Replaces the corpus' targets: each by that of another position of the batch; or the blend of every position by
        a smoothed label of the same entropy, with the uniform distribution or the corpus' unigrams.
    smooth_with : {"uniform", "unigram"}
        What `label_smoothing_factor` spreads over, in a training without soft targets.
    fused : bool
        Take the loss from the last hidden states, so that the logits of a batch never exist: a quarter of the memory or
        less where V is large.
    muon : bool
        The matrices of the student's layers are trained by Muon, all else by AdamW
        (`corpus_teacher.training.muon.MuonWithAdamW`), with one learning rate.

    Raises
    ------
    ConfigError
        A setting of ours that is out of range, or contradicts another one.

    Examples
    --------
    >>> config = DistillationConfig("runs/first", alpha=0.5, max_steps=100, use_cpu=True)
    >>> config.make_policy({"corpus"}).asked(step=0)
    {'hard': 0.5, 'corpus': 0.5}
    """

    learning_rate: float = field(default=1e-3, metadata={"help": "Of AdamW, at its highest."})
    weight_decay: float = field(default=0.1, metadata={"help": "Of AdamW."})
    adam_beta2: float = field(default=0.95, metadata={"help": "Of AdamW."})
    lr_scheduler_type: Any = field(default="cosine", metadata={"help": "How the learning rate falls."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Rows of a pass on each device."})
    per_device_eval_batch_size: int = field(
        default=16, metadata={"help": "Rows of a pass of an evaluation on each device."}
    )
    save_strategy: Any = field(default="no", metadata={"help": "When checkpoints are written."})
    report_to: Any = field(default="none", metadata={"help": "Loggers, such as tensorboard."})
    disable_tqdm: bool | None = field(default=True, metadata={"help": "No progress bars of transformers."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Has to stay off: batches carry soft targets."}
    )
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Batches of one size only."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "An evaluation keeps no logits."})
    alpha: float = field(default=0.5, metadata={"help": "Share of the soft targets."})
    beta: float = field(default=0.0, metadata={"help": "From forward KL, 0, to reverse KL, 1."})
    temperature: float = field(default=1.0, metadata={"help": "Of neural and self teacher."})
    policy: dict | None = field(default=None, metadata={"help": "A table of make_policy, in place of alpha."})
    control: str | None = field(default=None, metadata={"help": "Stands in for the corpus' targets."})
    smooth_with: str = field(default="uniform", metadata={"help": "What label_smoothing_factor spreads over."})
    fused: bool = field(default=False, metadata={"help": "Take the loss without the logits of the batch."})
    muon: bool = field(default=False, metadata={"help": "Muon for the matrices of the layers, AdamW for all else."})

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            check_share(getattr(self, name), name)
        if not is_number(self.temperature) or self.temperature <= 0:
            raise ConfigError(f"temperature is {self.temperature!r}: give a positive number, 1 for none")
        check_known(self.smooth_with, ("uniform", "unigram"), "smooth_with")
        for name in ("fused", "muon"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give true or false")
        if self.control is not None:
            check_known(self.control, CONTROLS, "control")
        if self.policy is not None:
            self.policy = in_steps(self.policy, self.max_steps) if self.max_steps > 0 else self.policy
            make_policy(self.policy)
            if self.beta:
                raise ConfigError(
                    f"beta is {self.beta} and there is a policy: a policy blends targets, leave beta at 0"
                )
            if self.control in CONTROLS[1:]:
                raise ConfigError(
                    f"control is {self.control!r} and there is a policy: give alpha instead of the policy"
                )
        if self.beta and self.control in CONTROLS[1:]:
            raise ConfigError(f"beta is {self.beta} and control {self.control!r}: leave one of them out")
        if self.remove_unused_columns:
            raise ConfigError(
                "remove_unused_columns is True: batches would lose where their rows stand in the corpus; leave it False"
            )
        self._check_machine()
        super().__post_init__()

    def _check_machine(self) -> None:
        """Refuse what isn't here: accelerators, and the packages of loggers."""
        accelerated = torch.accelerator.is_available()
        if not accelerated:  # torch warns of it
            self.dataloader_pin_memory = False
        for name in ("bf16", "fp16"):
            if getattr(self, name) and not (accelerated or self.use_cpu):
                raise ConfigError(f"{name} is set and this machine has no accelerator: leave it out, or set use_cpu")
        if self.fsdp:
            if (self.use_cpu or not accelerated) and not _fsdp_by_accelerate():
                raise ConfigError(
                    "fsdp is set and the training runs on CPUs, where transformers shards nothing: leave it out"
                )
            if self.fused:
                raise ConfigError("fsdp shards the lm_head that fused reads: set fused to false")
        if self.muon and (self.fsdp or self.deepspeed):
            raise ConfigError("muon is set and parameters are sharded, while it reads whole matrices: leave one out")
        if self.muon and not str(getattr(self.optim, "value", self.optim)).startswith("adamw_torch"):
            raise ConfigError(f"muon is set and optim is {self.optim!r}: Muon goes with adamw_torch, leave optim out")
        given = self.report_to if isinstance(self.report_to, (list, tuple)) else [self.report_to]
        missing = [name for name in given if name in _LOGGERS and name not in get_available_reporting_integrations()]
        if missing:
            raise ConfigError(
                f"report_to is {missing[0]!r}, which isn't installed: pip install {missing[0]}, or leave it out"
            )

    def make_policy(self, soft: Collection[str]) -> Policy:
        """The policy of these settings, for a training with these soft teachers ("corpus", "neural", "self").

        Raises
        ------
        ConfigError
            A policy, or an alpha, without its teacher; settings that these teachers don't go with.
        """
        if self.policy is not None:
            policy = make_policy(self.policy)
            missing = sorted(policy.soft - set(soft))
            if missing:
                raise ConfigError(f"the policy needs the teacher {missing[0]!r}: give it, or a policy without it")
            return policy
        if self.control is not None and "corpus" not in soft:
            raise ConfigError(f"control is {self.control!r} and there is no corpus teacher to stand in for: give one")
        if self.alpha == 0 or not soft:
            return Policy()
        if self.label_smoothing_factor:
            raise ConfigError(
                f"label_smoothing_factor is {self.label_smoothing_factor} and there are soft targets: set alpha to 0, "
                "or give a policy with a weight for 'base'"
            )
        if self.beta and len(soft) > 1:
            raise ConfigError(
                f"beta is {self.beta} with the teachers {', '.join(sorted(soft))}: a divergence has one, give only one"
            )
        share = self.alpha / len(soft)
        return Policy(
            {name: Share(share) for name in SOFT if name in soft},
            fallbacks=("hard",),
            min_match_len=0,
            min_count=0,
        )
