"""What happens between the steps: the clock, progress, an interruption that loses nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from corpus_teacher.blend import AdaptiveWeights


@dataclass
class StepClock:
    """Where the time of the optimizer steps went, in seconds; evaluation and checkpoints are not in it.

    Attributes
    ----------
    steps, tokens : int
        Steps timed, and tokens that this process was given in them.
    step_s : float
        From asking for the batches of a step to the end of its update.
    loader_s : float
        The part of it spent waiting for batches and for the targets that workers or a thread make of them.
    asked_s : float
        The part of it that live teachers took: a neural one, the student's average, and who scores the student's text.
    teacher_s : float
        What all teachers took, wherever and beside whatever they ran.
    """

    steps: int = 0
    tokens: int = 0
    step_s: float = 0.0
    loader_s: float = 0.0
    asked_s: float = 0.0
    teacher_s: float = 0.0
    began: float = 0.0


class ClockCallback(transformers.TrainerCallback):
    """Stops the clock at the end of each step."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        if args.device.type == "cuda":  # the step has only been queued
            torch.cuda.synchronize(args.device)
        self.clock.step_s += time.perf_counter() - self.clock.began
        self.clock.steps += 1


class AdaptiveCallback(transformers.TrainerCallback):
    """Lets the weights of an adaptive policy take their step with the optimizer's, of all processes' batches."""

    def __init__(self, weights: AdaptiveWeights, accelerator: Any) -> None:
        self.weights, self.accelerator = weights, accelerator

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        pending = self.weights.pending
        self.weights.step(self.accelerator.reduce(pending, "sum") if args.world_size > 1 else pending)


class BeginCallback(transformers.TrainerCallback):
    """Calls a function when the training begins, in the main process only: all that can be refused was by then."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin = begin

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        if state.is_world_process_zero:
            self.begin()


class ProgressCallback(transformers.TrainerCallback):
    """Tells a function of (step, last held-out loss or None) how far the training is."""

    def __init__(self, report: Callable[[int, float | None], None]) -> None:
        self.report = report
        self.held_out_nats: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        self.report(state.global_step, self.held_out_nats)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """See the class."""
        self.held_out_nats = (metrics or {}).get("eval_loss")


class InterruptCallback(transformers.TrainerCallback):
    """Ctrl-C: the step is finished, a checkpoint is written, and the training stops; a second one stops at once.

    Attributes
    ----------
    interrupted : bool
        Whether it came to that.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the signal over, where signals can be."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after this step, if asked."""
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the signal back."""
        self.release()

    def release(self) -> None:
        """Put back what handled the signal before; twice does no harm."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, number: int, frame: Any) -> None:
        self.interrupted = True
        self.release()
