"""The student as its own teacher: an exponential moving average of its weights.

After each step, ``average ← decay · average + (1 − decay) · student``. The average lags behind the student by about
1 / (1 − decay) steps and is smoother than it (Polyak and Juditsky 1992; as a teacher, Tarvainen and Valpola 2017). The
other self-teacher, an earlier checkpoint, is simply `NeuralTeacher("runs/checkpoint-500")`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers

from corpus_teacher.errors import ConfigError
from corpus_teacher.neural.live import NeuralTeacher


class EmaTeacher(NeuralTeacher):
    """An exponential moving average of a student, as a live teacher of it.

    Parameters
    ----------
    student : PreTrainedModel
        Copied once: the average starts as the student is now, and takes as much memory.
    decay : float
        0 to below 1; 0 follows the student at once.
    warm_up : bool
        Average over the few steps there are at first: the decay is at most (1 + steps) / (10 + steps), as TensorFlow's
        moving averages do.
    **options
        Of `NeuralTeacher`: kept, base, tail, rows, device, dtype.

    Raises
    ------
    ConfigError
        A decay out of range, or an option that doesn't fit.

    Notes
    -----
    `update` is O(parameters). The average is kept in float32 whatever the type of the student: a step of
    (1 − decay) · difference is below the last place of half precisions, and an average in them stops far from the
    student. A student of half precision costs 4 bytes a parameter more, and its average is asked in its own type.
    Parameters that the student ties are tied in the average. Weights that several processes
    hold parts of (FSDP) aren't gathered: give the whole model.
    """

    def __init__(
        self, student: transformers.PreTrainedModel, *, decay: float = 0.999, warm_up: bool = True, **options: Any
    ) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"decay is {decay}: give a number from 0 to below 1")
        average = copy.deepcopy(student)
        average.requires_grad_(False)
        average.eval()
        super().__init__(average, **options)
        self.name = f"moving average of {self.name}"
        self.decay = decay
        self.warm_up = warm_up
        self.steps = 0
        self._precise: dict[str, torch.Tensor] = {}
        self._keep_precise()

    def _keep_precise(self) -> None:
        """Averages in float32, by name, of the parameters that the model holds in less."""
        for name, parameter in self.model.named_parameters():
            if parameter.is_floating_point() and torch.finfo(parameter.dtype).bits < 32:
                self._precise[name] = parameter.detach().float()

    @torch.no_grad()
    def update(self, student: torch.nn.Module) -> None:
        """Move the average towards the student; call it after each optimizer step.

        Parameters
        ----------
        student : Module
            The model that was copied, or one of the same shape.

        Raises
        ------
        ConfigError
            Another set of parameters.
        """
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warm_up else self.decay
        current = dict(student.named_parameters())
        averages = dict(self.model.named_parameters())
        if current.keys() != averages.keys():
            strange = sorted(current.keys() ^ averages.keys())[0]
            raise ConfigError(
                f"the parameter {strange!r} is in only one of student and average: give the student that was copied"
            )
        for name, shown in averages.items():
            average = self._precise.get(name, shown)
            average.lerp_(current[name].detach().to(average.device, average.dtype), 1 - decay)
            if average is not shown:
                shown.copy_(average)
        buffers = dict(student.named_buffers())
        for name, kept in self.model.named_buffers():  # statistics, positions: not averaged
            kept.copy_(buffers[name])
        self.steps += 1

    def describe(self) -> dict[str, Any]:
        """As `NeuralTeacher.describe`, with the average's own settings."""
        return {**super().describe(), "decay": self.decay, "warm_up": self.warm_up, "updates": self.steps}

    def state_dict(self) -> dict[str, Any]:
        """Weights, float32 where the average is kept so, and number of updates, for checkpoints."""
        return {"steps": self.steps, "model": {**self.model.state_dict(), **self._precise}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        for name, average in self._precise.items():
            average.copy_(state["model"][name])
        self.steps = int(state["steps"])


class EmaCallback(transformers.TrainerCallback):
    """Updates an `EmaTeacher` after each optimizer step of transformers' Trainer.

    Parameters
    ----------
    teacher : EmaTeacher
    """

    def __init__(self, teacher: EmaTeacher) -> None:
        self.teacher = teacher

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """See the class."""
        while hasattr(model, "module"):  # what data parallelism wraps
            model = model.module
        self.teacher.update(model)
