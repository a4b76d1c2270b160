"""Training a student that has the corpus inside (`corpus_teacher.students.inside`): what goes with it, and its weights.

The loss is that of any student, on logits that the corpus is a part of already: for hard labels
``−log softmax(z + g · log p)`` or ``−log(λ · student + (1 − λ) · corpus)``. While training p leaves the text's own
document out. λ by evidence is followed by online expectation maximisation, from the student's share alone
(`corpus_teacher.blend.adaptive`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corpus_teacher.blend import AdaptiveWeights, Components
from corpus_teacher.errors import ConfigError
from corpus_teacher.students import CorpusStudent
from corpus_teacher.training.callbacks import AdaptiveCallback


@dataclass(frozen=True)
class Beside:
    """What else a training has, that a student with the corpus inside may not go with.

    Attributes
    ----------
    corpus_teacher, self_teacher, on_policy : bool
    form : str
    config : DistillationConfig
    """

    corpus_teacher: bool
    self_teacher: bool
    on_policy: bool
    form: str
    config: Any

    def check(self) -> None:
        """Refuse what a student with the corpus inside doesn't go with.

        Raises
        ------
        ConfigError
        """
        if not self.corpus_teacher:
            raise ConfigError(
                "the student has the corpus inside and there is no corpus teacher, which leaves documents out of it: "
                "give one"
            )
        for there, what, way in (
            (self.form != "flat", f"form is {self.form!r}", "set form to 'flat'"),
            (self.config.fused, "fused makes no logits", "set fused to false"),
            (bool(self.config.fsdp), "fsdp shards the gate", "leave fsdp out"),
            (self.config.control is not None, "control replaces what the corpus says", "leave control out"),
            (self.self_teacher, "its average or checkpoint would be asked without leaving documents out",
             "leave the self teacher out"),
            (self.on_policy, "it would have to write with the corpus", "leave on_policy out"),
        ):  # fmt: skip
            if there:
                raise ConfigError(f"the student has the corpus inside, and {what}: {way}")


class MixtureCallback(AdaptiveCallback):
    """Lets λ of the student's mixture follow the evidence, step by step."""

    def __init__(self, weights: AdaptiveWeights, accelerator: Any, student: CorpusStudent) -> None:
        super().__init__(weights, accelerator)
        self.student = student

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        super().on_step_end(args, state, control, **kwargs)
        self.student.mixture = self.weights.mixture()


def note_alone(weights: AdaptiveWeights, outputs: Any, components: Components) -> None:
    """Note what the student alone, and the corpus, gave to the labels of a batch."""
    with torch.no_grad():
        alone: Tensor = outputs["student_logits"].reshape(components.labels.shape[0], -1)
        log_p = torch.log_softmax(alone.float(), -1)
        of_label = log_p.gather(1, components.labels.clamp_min(0)[:, None])[:, 0]
        weights.note(components, -of_label)
