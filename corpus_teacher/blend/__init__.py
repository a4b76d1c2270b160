"""Who teaches what: hard label, corpus teacher, neural teacher, the student itself and the base, blended by a policy.

`make_policy` makes a `Policy` of a TOML table. `apply_policy` blends a batch and takes the loss; `blend` and
`blended_loss` are its two halves, and `BlendReport` tells the share of each `Reason`. No model is needed for any of it.
"""

from corpus_teacher.blend.adaptive import Adaptive, AdaptiveWeights
from corpus_teacher.blend.blending import Blend, BlendReport, blend
from corpus_teacher.blend.components import COMPONENTS, Components, DenseTargets, Reason
from corpus_teacher.blend.evidence import MEASURES, Evidence
from corpus_teacher.blend.interpolation import Buckets, MixtureWeights, fit_weights, mixed_probabilities
from corpus_teacher.blend.loss import TaughtLoss, apply_policy, blended_loss, fused_linear_blended_loss
from corpus_teacher.blend.policy import FALLBACKS, Policy, Routing, Share, make_policy
from corpus_teacher.blend.schedules import CosineSchedule, EarlyOnlySchedule, LinearSchedule, in_steps

__all__ = [
    "COMPONENTS",
    "FALLBACKS",
    "MEASURES",
    "Adaptive",
    "AdaptiveWeights",
    "Blend",
    "BlendReport",
    "Buckets",
    "Components",
    "CosineSchedule",
    "DenseTargets",
    "EarlyOnlySchedule",
    "Evidence",
    "LinearSchedule",
    "MixtureWeights",
    "Policy",
    "Reason",
    "Routing",
    "Share",
    "TaughtLoss",
    "apply_policy",
    "blend",
    "blended_loss",
    "fit_weights",
    "fused_linear_blended_loss",
    "in_steps",
    "make_policy",
    "mixed_probabilities",
]
