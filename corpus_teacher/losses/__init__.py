"""Losses of a student against labels and soft targets: pure functions, exact over the vocabulary, CPU and
accelerators, any floating type, also under autocast. Direction: the target first, as in KL(target ‖ student);
unit: nats.

On logits: `soft_cross_entropy`, `forward_kl`, `blended_cross_entropy`, `reverse_kl`, `generalized_jsd`,
`label_smoothing_cross_entropy`. The same from the student's last hidden states, without the logits of the
whole batch: `fused_linear_…`. Changes of targets: `temper_targets`, and the control `permute_targets`.
"""

from corpus_teacher.losses.checks import IGNORE_INDEX, BlendedLoss, shift_labels
from corpus_teacher.losses.cross_entropy import blended_cross_entropy, forward_kl, soft_cross_entropy
from corpus_teacher.losses.divergences import generalized_jsd, reverse_kl
from corpus_teacher.losses.from_hidden import (
    fused_linear_blended_cross_entropy,
    fused_linear_generalized_jsd,
    fused_linear_label_smoothing_cross_entropy,
    fused_linear_soft_cross_entropy,
)
from corpus_teacher.losses.smoothing import (
    MatchedSmoothing,
    epsilon_of_entropy,
    label_smoothing_cross_entropy,
    label_smoothing_entropy,
)
from corpus_teacher.targets.transforms import permute_targets, temper_targets

__all__ = [
    "IGNORE_INDEX",
    "BlendedLoss",
    "MatchedSmoothing",
    "blended_cross_entropy",
    "epsilon_of_entropy",
    "forward_kl",
    "fused_linear_blended_cross_entropy",
    "fused_linear_generalized_jsd",
    "fused_linear_label_smoothing_cross_entropy",
    "fused_linear_soft_cross_entropy",
    "generalized_jsd",
    "label_smoothing_cross_entropy",
    "label_smoothing_entropy",
    "permute_targets",
    "reverse_kl",
    "shift_labels",
    "soft_cross_entropy",
    "temper_targets",
]
