"""Quantisation-aware distillation: what rounding to int8 or int4 loses, and what is recovered.

    pip install torchao && python examples/quantization_recovery.py

A student is trained on bytes of Python's standard library, then rounded, and then distilled towards what it was before,
by KL(full precision ‖ rounded) on the same text. The control takes as many steps on the plain cross-entropy: it goes on
learning, and moves away from the start. One seed, a small student: it shows the way, no more.
"""

import argparse
import copy

import numpy as np
import torch

from corpus_teacher.data import ByteTokenizer, TokenWindows
from corpus_teacher.losses import forward_kl, label_smoothing_cross_entropy, shift_labels
from corpus_teacher.neural import NeuralTeacher, TargetFormat
from corpus_teacher.quantization import convert, fake_quantize
from corpus_teacher.standard_library import split_standard_library
from corpus_teacher.training import make_student


def train(student, windows, steps, rate, batch, teacher=None):
    """AdamW on the text, or on KL(teacher ‖ student) where there is a teacher; returns the student."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for step in range(steps):
        rows = [windows[(step * batch + number) % len(windows)]["input_ids"] for number in range(batch)]
        ids = torch.from_numpy(np.stack(rows))
        logits = student(ids).logits
        hard = teacher is None
        loss = label_smoothing_cross_entropy(logits, shift_labels(ids)) if hard else forward_kl(logits, teacher(ids))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return student


@torch.no_grad()
def judge(name, student, held_out, teacher):
    """Print held-out nats a byte, and KL to the full-precision start."""
    logits = student(held_out).logits
    nats = label_smoothing_cross_entropy(logits, shift_labels(held_out))
    print(f"{name:<36}{nats.item():>15.4f}{forward_kl(logits, teacher(held_out)).item():>14.5f}")


def main() -> None:
    """Start, then each format: rounded, recovered, converted, control."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, value in (("bytes", 4_000_000), ("length", 64), ("pretrain", 500), ("steps", 80), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    split, words = split_standard_library(max_bytes=chosen.bytes), ByteTokenizer()
    texts = [words.encode("".join(document.text for document in half)) for half in (split.train, split.held_out)]
    windows = TokenWindows(texts[0], chosen.length)
    judged = [row["input_ids"] for row in TokenWindows(texts[1], chosen.length, limit=64)]
    held_out = torch.from_numpy(np.stack(judged))
    sizes = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4}
    start = make_student({**sizes, "num_hidden_layers": 3}, vocab_size=257)
    train(start, windows, chosen.pretrain, 4e-3, chosen.batch)
    teacher = NeuralTeacher(start, kept=TargetFormat("top-k", k=257))
    print(f"{'student':<36}{'held-out nats':>15}{'KL to start':>14}")
    judge("full precision", start, held_out, teacher)
    for weights, activations, group_size in (("int8", None, None), ("int4", None, None), ("int4", "int8", 32)):
        name = (
            f"{weights}{'' if group_size is None else f'/{group_size}'}{' + int8 activations' if activations else ''}"
        )
        rounded = copy.deepcopy(start)
        fake_quantize(rounded, weights, activations, group_size)
        judge(f"{name}: rounded", rounded, held_out, teacher)
        recovered = train(copy.deepcopy(rounded), windows, chosen.steps, 5e-4, chosen.batch, teacher)
        convert(recovered)
        judge(f"{name}: distilled", recovered, held_out, teacher)
        judge(f"{name}: text", train(rounded, windows, chosen.steps, 5e-4, chosen.batch), held_out, teacher)


if __name__ == "__main__":
    main()
