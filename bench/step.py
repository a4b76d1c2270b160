"""What the corpus teacher costs a training step: the same student, the same windows, hard labels beside soft ones.

    python -m bench.step                            # the demo's student, and one of 11 million parameters with V 50,257
    python -m bench.step --students small --places thread --rounds 9

Naively: train twice and divide the times. A shared machine drifts by more than the teacher costs, so here all
trainings live side by side in one process and take turns of a few steps; told is the median over the rounds of the
ratio within a round, with its quartiles, by three clocks. `wall` is what a user waits; it needs a core for the teacher
where a thread or a worker asks it. `step` is the CPU time of the thread that trains: what is left where such a core is
free, whoever else is on the machine. `cpu` is that of the process, the teacher's thread included: what is left where
all cores are the student's.

The text is Python's standard library, on every machine, with a BPE trained on it; the teacher is the demo's (order 3,
64 pairs a position), without a position's own document, the default, and without the position alone, the cheaper way.
Every loss comes out of the loop below, every batch out of the same kind of loader, fetched one step ahead as
transformers' Trainer does.
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

import torch
import torch.nn.functional as F
from corpus_index import CorpusIndex
from torch.utils.data import DataLoader

from corpus_teacher.data import TokenWindows, available_cores, build_index_from_documents, train_tokenizer
from corpus_teacher.demo.run import DemoSettings
from corpus_teacher.losses import shift_labels
from corpus_teacher.standard_library import split_standard_library
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import (
    DEFAULT_STUDENT,
    DistillationCollator,
    DistillationConfig,
    Objective,
    finish,
    make_student,
)

DEMO = DemoSettings()
STUDENTS: dict[str, dict[str, Any]] = {
    "small": {"config": DEFAULT_STUDENT, "vocab_size": DEMO.vocab_size, "length": DEMO.length, "batch": 16},
    "large": {
        "config": {**DEFAULT_STUDENT, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4},
        "vocab_size": 50_257,
        "length": 256,
        "batch": 4,
    },
}
LABELS = ("torch cross-entropy", "hard label")
"""Torch's own loss, and ours, which is the faster one and the fair baseline."""
LEAVE_OUT = ("document", "self")
PLACES = ("between", "thread", "worker")
"""Who asks the teacher: the training's thread between two steps, a thread beside it, a worker of the loader."""
CLOCKS = ("wall", "step", "cpu")


def library_index(vocab_size: int, max_bytes: int, folder: Path) -> CorpusIndex:
    """An index of the standard library's sources, tokens by a BPE trained on them."""
    split = split_standard_library(max_bytes=max_bytes)
    tokenizer = train_tokenizer((document.text for document in split.train), vocab_size)
    return build_index_from_documents(split.train, tokenizer, folder, name="the standard library")


def clocks() -> tuple[float, float, float]:
    """Of `CLOCKS`, in seconds."""
    return time.perf_counter(), time.thread_time(), time.process_time()


def steps_of(
    arm: str, place: str, student: dict[str, Any], index: CorpusIndex, device: str
) -> Callable[[int], tuple[float, ...]]:
    """A training of an arm: call it with a number of steps, get the seconds a step by every clock."""
    soft = arm not in LABELS
    config = DistillationConfig("unused", alpha=0.5 if soft else 0.0, use_cpu=device == "cpu")
    teacher = CorpusTeacher(index, max_order=DEMO.max_order, top_k=DEMO.top_k, leave_out=arm) if soft else None
    objective = Objective(config, {"corpus"} if soft else ())
    model = make_student(student["config"], vocab_size=index.vocab_size).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    workers = int(place == "worker" and soft)
    loader = DataLoader(
        TokenWindows(index.tokens, student["length"], doc_starts=index.doc_starts),  # type: ignore[arg-type]
        batch_size=student["batch"],
        collate_fn=DistillationCollator(teacher, ahead=place == "thread"),
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
    )
    batches = one_ahead(loader)

    def run(steps: int) -> tuple[float, ...]:
        began = clocks()
        for step in range(steps):
            batch = finish(next(batches))
            input_ids = batch["input_ids"].to(device)
            logits, labels = model(input_ids=input_ids).logits, shift_labels(batch["labels"].to(device))
            if arm == LABELS[0]:
                loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            else:
                targets = batch["soft_targets"].to(device) if soft else None
                loss = objective(step, logits, labels, corpus=targets).loss / labels.ne(-100).sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()
        return tuple((now - before) / steps for before, now in zip(began, clocks(), strict=True))

    return run


def one_ahead(loader: Any) -> Iterator[dict[str, Any]]:
    """Batches without end; the next one is fetched before one is given out."""
    waiting = None
    while True:
        for batch in loader:
            if waiting is not None:
                yield waiting
            waiting = batch


def measure(name: str, index: CorpusIndex, place: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step of every arm, and the ratios within rounds."""
    student = STUDENTS[name]
    arms = {arm: steps_of(arm, place, student, index, asked.device) for arm in (*LABELS, *LEAVE_OUT)}
    for run in arms.values():
        run(2)  # compilation, workers, memory
    times: dict[str, list[tuple[float, ...]]] = {arm: [] for arm in arms}
    for number in range(asked.rounds):
        for arm in list(arms) if number % 2 == 0 else list(arms)[::-1]:
            times[arm].append(arms[arm](asked.steps))
    row: dict[str, Any] = {
        "student": name,
        "parameters": make_student(student["config"], vocab_size=index.vocab_size).num_parameters(),
        "vocab_size": index.vocab_size,
        "positions_a_step": student["batch"] * student["length"],
        "index_tokens": index.num_tokens,
        "place": place,
        "rounds": asked.rounds,
        "steps_a_round": asked.steps,
        "seconds_a_step": {},
        "ratios": {},
    }
    for number, clock in enumerate(CLOCKS):
        if clock == "cpu" and place == "worker":
            continue  # another process has the teacher's part
        seconds = {arm: [each[number] for each in every] for arm, every in times.items()}
        row["seconds_a_step"][clock] = {arm: statistics.median(every) for arm, every in seconds.items()}
        for arm in LEAVE_OUT:
            for base in LABELS:
                ratios = [soft / hard for soft, hard in zip(seconds[arm], seconds[base], strict=True)]
                quartiles = statistics.quantiles(ratios, n=4) if asked.rounds > 1 else ratios * 3
                row["ratios"][f"{arm} / {base}, {clock}"] = [round(one, 4) for one in quartiles]
    return row


def show(row: dict[str, Any]) -> None:
    """A row for people."""
    print(f"{row['student']}: {row['parameters']:,} parameters, V {row['vocab_size']:,}, asked: {row['place']}")
    print(f"  {'ms a step':<36}" + "".join(f"{clock:>22}" for clock in row["seconds_a_step"]))
    for arm in (*LABELS, *LEAVE_OUT):
        name = arm if arm in LABELS else f"corpus teacher without the {'document' if arm == 'document' else 'position'}"
        each = "".join(f"{seconds[arm] * 1000:22.1f}" for seconds in row["seconds_a_step"].values())
        print(f"  {name:<36}{each}")
    for arm in LEAVE_OUT:
        for base in LABELS:
            told = ""
            for clock in row["seconds_a_step"]:
                low, middle, high = row["ratios"][f"{arm} / {base}, {clock}"]
                told += f"{middle:8.3f} ({low:.3f}–{high:.3f})"
            print(f"  × of {base} ({arm} out)".ljust(38) + told)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument(
        "--places", nargs="+", default=["between", "thread"], choices=PLACES, help="who asks the teacher"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="steps of an arm in a round")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", default="cpu", help="of the student: cpu or cuda")
    parser.add_argument("--bytes", type=int, default=DEMO.max_bytes, help="of the standard library")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.students:
            index = library_index(STUDENTS[name]["vocab_size"], asked.bytes, Path(folder, name))
            for place in asked.places:
                rows.append(measure(name, index, place, asked))
                show(rows[-1])
            index.close()
    answer = {
        "bench": "step",
        "machine": {"cores": available_cores(), "system": platform.platform(), "device": asked.device},
        "torch": torch.__version__,
        "threads": asked.threads,
        "rows": rows,
    }
    if asked.out:
        asked.out.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
