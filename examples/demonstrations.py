"""Demonstration-conditioned self-distillation: to speak a dialect without being shown it first.

    python examples/demonstrations.py

A model reads generated text in eight dialects. Shown a demonstration of one, it goes on in it; unprompted, it hedges.
It then teaches itself on its own answers, the teacher being the same model (frozen, its average, or live) that has read
a demonstration; the control is fine-tuning on the demonstrations. Printed are nats/token in the dialect that is learnt,
and in the other seven after demonstrations of theirs: what was gained, and what was forgotten. One seed: it shows the
way, no more.
"""

import argparse
import copy

import torch

from corpus_teacher.demonstrations import (
    DemonstrationCollator,
    DemonstrationDataset,
    DemonstrationSettings,
    demonstration_loss,
)
from corpus_teacher.losses import label_smoothing_cross_entropy, shift_labels
from corpus_teacher.neural import EmaTeacher, TargetFormat
from corpus_teacher.on_policy import OnPolicy
from corpus_teacher.training import make_student

VOCAB, DIALECTS, ROWS = 16, 8, 32
TABLES = torch.randn(DIALECTS, VOCAB, VOCAB, generator=torch.Generator().manual_seed(0)).mul(2.5).softmax(-1)


def write(dialects: torch.Tensor, length: int, seed: int) -> torch.Tensor:
    """One text of each dialect in the list, (n, length)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (len(dialects), 1), generator=generator)
    while ids.shape[1] < length:
        ids = torch.cat([ids, torch.multinomial(TABLES[dialects, ids[:, -1]], 1, generator=generator)], 1)
    return ids


def nats(model: torch.nn.Module, ids: torch.Tensor, shown: int = 1) -> torch.Tensor:
    """Nats a token of what follows the first `shown` tokens."""
    return label_smoothing_cross_entropy(model(ids).logits[:, shown - 1 :], shift_labels(ids)[:, shown - 1 :])


def main() -> None:
    """Pre-training, three ways of self-distillation and the control, table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, value in (("pretrain", 700), ("steps", 60), ("shown", 20), ("answer", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    one, others = torch.zeros(256, dtype=torch.int64), torch.arange(256) % (DIALECTS - 1) + 1
    sizes = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    start = make_student({**sizes, "num_hidden_layers": 2}, vocab_size=VOCAB)
    shown = write(one[:ROWS], chosen.shown, seed=10**7)
    data = DemonstrationDataset(([number % VOCAB], shown[number].tolist()) for number in range(ROWS))
    batch = DemonstrationCollator()([data[number] for number in range(ROWS)])
    settings, draws = DemonstrationSettings(max_tokens=chosen.answer), OnPolicy()

    def loss_of(name: str, student: torch.nn.Module, teacher: object, step: int) -> torch.Tensor:
        if name == "start":
            dialects = torch.randint(DIALECTS, (ROWS,), generator=torch.Generator().manual_seed(-1 - step))
            return nats(student, write(dialects, chosen.shown + chosen.answer, seed=step))
        if name == "fine-tuned":
            return nats(student, shown)
        return demonstration_loss(student, teacher, batch, settings, draws.generator(step)).loss

    print(f"{'model':<20}{'unprompted':>12}{'shown':>9}{'others, shown':>15}")
    for name in ("start", "frozen teacher", "moving average", "live weights", "fine-tuned"):
        student = start if name == "start" else copy.deepcopy(start)
        average = EmaTeacher(start, decay=0.95, kept=TargetFormat(k=8))
        teacher = {"frozen teacher": start, "moving average": average}.get(name)
        steps, rate = (chosen.pretrain, 4e-3) if name == "start" else (chosen.steps, 3e-4)
        optimizer = torch.optim.AdamW(student.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
        for step in range(steps):
            loss_of(name, student, teacher, step).backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            average.update(student)
        with torch.no_grad():
            texts = [write(one, 1 + chosen.answer, seed=10**6), *(write(d, 28, seed=10**6) for d in (one, others))]
            told = [float(nats(student, ids, begin)) for ids, begin in zip(texts, (1, 20, 20), strict=True)]
        print(f"{name:<20}{told[0]:>12.4f}{told[1]:>9.4f}{told[2]:>15.4f}")


if __name__ == "__main__":
    main()
