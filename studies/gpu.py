"""One pair of students on one GPU, in a given number of minutes: hard labels, and an annealed corpus teacher beside.

    python studies/gpu.py PROSE --out runs/gpu --minutes 13            # the studies' folder of prose
    python studies/gpu.py texts/ --out runs/try --quick --minutes 2    # tiny, on the CPU: it answers nothing

124 million parameters (Qwen3's shape: 12 layers, 768 wide, queries and keys normalised), bf16, Muon with AdamW, rows of
1,024 tokens, 65,536 tokens a step, the learning rate warmed up over 5 % and brought to 0 by a cosine. Both students
read the same windows in the same order; the index is exactly what they read, and each window's book is left out. The
teacher's weight falls from ¾ to 0 at 60 % of the steps. How many tokens are read is settled before either training,
by the time of a step with the teacher: at most --tokens, and no more than both trainings finish in the minutes. The
books hold some 35 million tokens, so 150 million are four passes.

Written before any run. Expected: the taught student is better on books by other authors, by less than at 0.6 million
parameters (0.096 nats at five tokens a parameter, one pass). Refuted: the interval over held-out books holds 0, or the
taught student is worse. One seed: the interval says how books differ, not how seeds do.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corpus_teacher.data import BuildOptions, build_index_from_sources
from corpus_teacher.data.held_out import HeldOut, read_held_out
from corpus_teacher.data.opening import index_tokenizer, open_index
from corpus_teacher.files import write_json
from corpus_teacher.study.report.statistics import difference, draw_losses
from corpus_teacher.training import load_student
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import make_run, merged

TRAIN, HELD_OUT = "prose_train.jsonl.zst", "prose_dev.jsonl.zst"
SHARE_FOR_TRAININGS = 0.8
"""Of the time that is left when the index stands; evaluation has the rest."""

FULL: dict[str, Any] = {
    "student": {
        "model_type": "qwen3", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_key_value_heads": 12, "head_dim": 64, "intermediate_size": 2048, "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    },
    "data": {"length": 1024, "held_out_tokens": 131_072},
    "training": {
        "per_device_train_batch_size": 32, "gradient_accumulation_steps": 2, "learning_rate": 2e-3, "muon": True,
        "bf16": True, "torch_compile": True, "dataloader_num_workers": 12, "eval_strategy": "no",
    },
}  # fmt: skip
QUICK: dict[str, Any] = {
    "student": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                "head_dim": 16, "intermediate_size": 64},
    "data": {"length": 64, "held_out_tokens": 1024},
    "training": {"per_device_train_batch_size": 4, "bf16": False, "torch_compile": False, "dataloader_num_workers": 0,
                 "use_cpu": True},
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "hard": {},
    "annealed": {
        "corpus": {"estimator": "modified-kneser-ney", "max_order": 4, "leave_out": "document"},
        "policy": {"corpus": {"weight": 0.75, "schedule": {"kind": "linear", "end_step": "60%"}}},
    },
}


def settings_of(arm: str, table: dict[str, Any], steps: int, out: Path) -> Any:
    """A training of so many steps."""
    return make_run(merged(merged(table, ARMS[arm]), {"out": str(out), "training": {"max_steps": steps}}))


def seconds_a_step(table: dict[str, Any], steps: int = 16) -> float:
    """Of the dearer arm, the median without the first half, in which kernels are compiled."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run_training(
            settings_of("annealed", table, steps, Path(folder, "run")),
            progress=lambda *_: ends.append(time.perf_counter()),
        )
    return statistics.median(np.diff(ends[len(ends) // 2 :]).tolist())


@torch.no_grad()
def nats_of_books(student: Any, held_out: HeldOut, length: int, rows: int) -> list[float]:
    """The summed loss of each held-out book."""
    student.eval()
    each = []
    for batch in held_out.batches(length=length, rows=rows, overlap=length // 4):
        labels = torch.from_numpy(batch.next_ids).to(student.device)
        logits = student(input_ids=torch.from_numpy(batch.input_ids).to(student.device)).logits
        counted = labels >= 0
        nats = torch.nn.functional.cross_entropy(logits[counted].float(), labels[counted], reduction="none")
        each.append(nats.double().cpu().numpy())
    return [float(one) for one in np.add.reduceat(np.concatenate(each), held_out.corpus.doc_starts[:-1])]


def next_sentence_task(books: list[str], folder: Path, items: int) -> None:
    """A task of lm-evaluation-harness: which of four sentences of a held-out book comes next; chance is a quarter."""
    draw, made = np.random.default_rng(0), []
    for number in range(items):
        sentences = re.split(r"(?<=[.!?])\s+", books[number % len(books)])
        at, *others = draw.integers(3, len(sentences), 4).tolist()
        choices = [" " + sentences[one] for one in (at, *others)]
        order = draw.permutation(4).tolist()
        question = " ".join(sentences[at - 3 : at])
        made.append({"question": question, "choices": [choices[one] for one in order], "answer": order.index(0)})
    (folder / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in made), encoding="utf-8")
    (folder / "next_sentence.yaml").write_text(
        f"task: next_sentence\ndataset_path: json\ntest_split: test\ndataset_kwargs:\n  cache_dir: {folder}/cache\n"
        f"  data_files:\n    test: {folder}/items.jsonl\noutput_type: multiple_choice\n"
        "doc_to_text: '{{question}}'\n"
        "doc_to_choice: choices\ndoc_to_target: answer\ntarget_delimiter: ''\n"
        "metric_list:\n  - metric: acc\n  - metric: acc_norm\n",
        encoding="utf-8",
    )


def harness(student: Path, books: list[str], items: int, tasks: list[str], device: str) -> dict[str, Any]:
    """What lm-evaluation-harness says of a student, where it is installed."""
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError:
        return {"left out": "lm-eval is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        next_sentence_task(books, Path(folder), items)
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args=f"pretrained={student},dtype=float32",
            tasks=["next_sentence", *tasks],
            task_manager=TaskManager(include_path=folder, include_defaults=bool(tasks)),
            device=device,
            batch_size=32,
        )
    return {task: {name: value for name, value in one.items() if name != "alias"}
            for task, one in found["results"].items()}  # fmt: skip


def say(text: str) -> None:
    """A line for who waits."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Index, time a step, train both, compare."""
    parser = argparse.ArgumentParser(description="One pair of students on one GPU.")
    add = parser.add_argument
    add("prose", type=Path, help=f"the folder of {TRAIN} and {HELD_OUT}, or of .txt files: the last one is held out")
    add("--out", type=Path, required=True, help="a new folder")
    add("--minutes", type=float, default=13.0, help="all of it (default: 13)")
    add("--tokens", type=float, default=150e6, help="read by each student at most (default: 150 million)")
    add("--tasks", nargs="*", default=[], help="more tasks of lm-evaluation-harness, by its names; they need a network")
    add("--quick", action="store_true", help="tiny students on the CPU")
    asked = parser.parse_args()
    begin, device = time.perf_counter(), "cpu" if asked.quick else "cuda"
    texts = sorted(asked.prose.glob("*.txt"))
    train, kept = (texts[:-1], texts[-1:]) if texts else ([asked.prose / TRAIN], [asked.prose / HELD_OUT])

    say("index …")
    path = asked.out / "index"
    build_index_from_sources(
        [str(one) for one in train], path, BuildOptions(tokenizer="train:512" if asked.quick else "train:50k")
    )
    table: dict[str, Any] = {"data": {"index": str(path), "held_out": [str(one) for one in kept]}, "seed": 0}
    table = merged(merged(table, FULL), QUICK if asked.quick else {})
    training = table["training"]
    rows = training["per_device_train_batch_size"]
    tokens_a_step = rows * training["gradient_accumulation_steps"] * table["data"]["length"]
    stood = time.perf_counter() - begin
    step_s = seconds_a_step(table)
    left = asked.minutes * 60 - (time.perf_counter() - begin)
    steps = int(min(asked.tokens / tokens_a_step, SHARE_FOR_TRAININGS * left / (len(ARMS) * step_s)))
    if steps < 10:
        sys.exit(f"{asked.minutes:g} minutes are too few: a step takes {step_s:.2f} s, and {left:.0f} s are left")
    say(f"{steps} steps of {tokens_a_step:,} tokens, {step_s:.3f} s each with the teacher")

    with open_index(path) as index:
        words = index_tokenizer(index)
        held_out = read_held_out(index, [str(one) for one in kept], words)
        tokens = np.diff(held_out.corpus.doc_starts)
        text = [words.decode(held_out.corpus.tokens[low:high - 1]) for low, high in
                zip(held_out.corpus.doc_starts[:-1], held_out.corpus.doc_starts[1:], strict=True)]  # fmt: skip
        result: dict[str, Any] = {
            "steps": steps, "tokens_read": steps * tokens_a_step, "tokens_in_index": index.num_tokens,
            "index_s": stood, "held_out_tokens": int(tokens.sum()), "books": len(tokens), "arms": {},
        }  # fmt: skip
    sums = []
    for arm in ARMS:
        say(f"{arm} …")
        trained = run_training(settings_of(arm, table, steps, asked.out / arm))
        student: Any = load_student(asked.out / arm / "student")
        student.to(device)
        sums.append(nats_of_books(student, held_out, table["data"]["length"], rows))
        result["parameters"] = student.num_parameters()
        result["arms"][arm] = {
            "nats": sum(sums[-1]) / float(tokens.sum()),
            "train_s": trained.seconds,
            "teacher_share": trained.teacher_share,
            "harness": harness(asked.out / arm / "student", text, 20 if asked.quick else 500, asked.tasks, device),
        }
        del student
    lower = difference(draw_losses(np.asarray(sums)[:, None, :], tokens))
    result |= {"annealed_minus_hard": [lower.value, lower.low, lower.high], "total_s": time.perf_counter() - begin}
    write_json(asked.out / "result.json", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
