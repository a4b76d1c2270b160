"""What the corpus teacher costs a training step: the same student, the same windows, hard labels beside soft ones.

    python -m bench.step                            # the demo's student, and one of 10 million parameters with V 50,257
    python -m bench.step --students small --rounds 9

Naively: train twice and divide the times. A shared machine drifts by more than the teacher costs, so here all trainings
live side by side in one process and take turns of a few steps; told is the median over the rounds of the ratio within a
round, with its quartiles, of wall clock and of CPU time (which others on the machine disturb less; what loader workers
take is not in it). All losses come out of the same loop, all batches out of the same kind of loader.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from corpus_index import CorpusIndex, build_index
from torch.utils.data import DataLoader

from corpus_teacher.data import TokenWindows, available_cores
from corpus_teacher.losses import shift_labels
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import (
    DEFAULT_STUDENT,
    DistillationCollator,
    DistillationConfig,
    Objective,
    make_student,
)

STUDENTS: dict[str, dict[str, Any]] = {
    "small": {"config": DEFAULT_STUDENT, "vocab_size": 4096, "tokens": 3_000_000, "length": 128, "batch": 16},
    "large": {
        "config": {**DEFAULT_STUDENT, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4},
        "vocab_size": 50_257,
        "tokens": 5_000_000,
        "length": 256,
        "batch": 4,
    },
}
ARMS = ("torch cross-entropy", "hard label", "corpus teacher")


def zipf_index(vocab_size: int, tokens: int, folder: Path) -> CorpusIndex:
    """An index of text whose next token depends on the last one, frequencies after Zipf."""
    generator = np.random.default_rng(0)
    ranks = np.arange(1, vocab_size + 1)
    text = generator.choice(vocab_size, tokens, p=(1 / ranks) / (1 / ranks).sum())
    repeated = generator.random(tokens) < 0.5  # half of the text repeats what stood some way before
    back = generator.integers(1, 5000, tokens // 8).repeat(8)[:tokens]
    source = np.maximum(np.arange(len(back)) - back, 0)
    text[: len(back)] = np.where(repeated[: len(back)], text[source], text[: len(back)])
    return build_index(text.astype(np.uint16), folder, vocab_size=vocab_size)


def steps_of(
    arm: str, student: dict[str, Any], index: CorpusIndex, workers: int
) -> Callable[[int], tuple[float, float]]:
    """A training of an arm: call it with a number of steps, get the seconds of wall clock and CPU a step."""
    config = DistillationConfig("unused", alpha=0.5 if arm == "corpus teacher" else 0.0, use_cpu=True)
    teacher = CorpusTeacher(index, max_order=5, leave_out="self") if arm == "corpus teacher" else None
    objective = Objective(config, {"corpus"} if teacher else ())
    model = make_student(student["config"], vocab_size=student["vocab_size"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    windows = TokenWindows(index.tokens, student["length"])
    loader = DataLoader(
        windows,  # type: ignore[arg-type]
        batch_size=student["batch"],
        collate_fn=DistillationCollator(teacher),
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
    )
    batches = endless(loader)

    def run(steps: int) -> tuple[float, float]:
        began, began_cpu = time.perf_counter(), time.process_time()
        for step in range(steps):
            batch = next(batches)
            logits = model(input_ids=batch["input_ids"]).logits
            labels = shift_labels(batch["labels"])
            if arm == ARMS[0]:
                loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            else:
                taught = objective(step, logits, labels, corpus=batch.get("soft_targets"))
                loss = taught.loss / labels.ne(-100).sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return (time.perf_counter() - began) / steps, (time.process_time() - began_cpu) / steps

    return run


def endless(loader: Any) -> Iterator[dict[str, Any]]:
    """Batches without end."""
    while True:
        yield from loader


def measure(name: str, rounds: int, steps: int, workers: int) -> dict[str, Any]:
    """Seconds a step of every arm, and the ratios within rounds."""
    student = STUDENTS[name]
    with tempfile.TemporaryDirectory() as folder:
        index = zipf_index(student["vocab_size"], student["tokens"], Path(folder) / "index")
        arms = {arm: steps_of(arm, student, index, workers) for arm in ARMS}
        for run in arms.values():
            run(2)  # compilation, workers, memory
        times: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
        for number in range(rounds):
            for arm in ARMS if number % 2 == 0 else ARMS[::-1]:
                times[arm].append(arms[arm](steps))
        parameters = make_student(student["config"], vocab_size=student["vocab_size"]).num_parameters()
        index.close()
    row: dict[str, Any] = {
        "student": name,
        "parameters": parameters,
        "vocab_size": student["vocab_size"],
        "positions_a_step": student["batch"] * student["length"],
        "workers": workers,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "steps_a_round": steps,
        "ratios": {},
    }
    for place, clock in enumerate(("wall", "cpu")):
        seconds = {arm: [pair[place] for pair in pairs] for arm, pairs in times.items()}
        row[f"{clock}_s"] = {arm: statistics.median(ones) for arm, ones in seconds.items()}
        for base in ARMS[:2]:
            ratios = [soft / hard for soft, hard in zip(seconds[ARMS[2]], seconds[base], strict=True)]
            quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
            row["ratios"][f"{ARMS[2]} / {base}, {clock}"] = [round(one, 4) for one in quartiles]
    return row


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="steps of an arm in a round")
    parser.add_argument("--workers", type=int, default=0, help="of the loader; 0: the teacher runs between the steps")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = [measure(name, asked.rounds, asked.steps, asked.workers) for name in asked.students]
    for row in rows:
        print(f"{row['student']}: {row['parameters']:,} parameters, V {row['vocab_size']:,}, {row['workers']} workers")
        for arm in ARMS:
            print(f"  {arm:<20} {row['wall_s'][arm] * 1000:9.1f} ms a step, CPU {row['cpu_s'][arm] * 1000:9.1f} ms")
        for name, (low, middle, high) in row["ratios"].items():
            print(f"  {name}: {middle:.3f} ({low:.3f} to {high:.3f})")
    answer = {
        "bench": "step",
        "machine": {"cores": available_cores(), "system": platform.platform()},
        "torch": torch.__version__,
        "rows": rows,
    }
    if asked.out:
        asked.out.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
