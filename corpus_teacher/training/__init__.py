"""Training a student on labels, on what the corpus says, on what a neural teacher or the student itself says.

`DistillationTrainer` with its `DistillationConfig` is transformers' Trainer with soft targets. `train_student` runs one
training, `Objective` is its loss for other loops, `make_student` and `load_student` make what is trained.
"""

from corpus_teacher.training.callbacks import StepClock
from corpus_teacher.training.collator import DistillationCollator, finish
from corpus_teacher.training.config import DistillationConfig
from corpus_teacher.training.objective import Head, Objective, Taught
from corpus_teacher.training.run import TrainingResult, train_student
from corpus_teacher.training.student import DEFAULT_STUDENT, load_student, make_student
from corpus_teacher.training.trainer import DistillationTrainer

__all__ = [
    "DEFAULT_STUDENT",
    "DistillationCollator",
    "DistillationConfig",
    "DistillationTrainer",
    "Head",
    "Objective",
    "StepClock",
    "Taught",
    "TrainingResult",
    "finish",
    "load_student",
    "make_student",
    "train_student",
]
