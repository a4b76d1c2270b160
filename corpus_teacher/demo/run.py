"""The whole idea on any machine, in minutes: a corpus, its index, its teacher, and three students.

The corpus is Python's own standard library. Three students with the same first weights read the same tokens
in the same order, for the same number of steps: one is trained on hard labels, one on the blend of label and
corpus teacher, and one, the control, on labels smoothed to the mean entropy of that blend: what the second
gains over the third can't come from softness alone. The number of steps is fixed, so that every machine trains
the same students; only the last digits depend on how it adds up.
"""

from __future__ import annotations

import math
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from corpus_teacher.data import (
    Tokenizer,
    TokenWindows,
    build_index_from_documents,
    tokenize_documents,
    train_tokenizer,
)
from corpus_teacher.demo.run_page import write_report
from corpus_teacher.errors import OutputError
from corpus_teacher.files import write_json
from corpus_teacher.losses import epsilon_of_entropy, shift_labels
from corpus_teacher.provenance import machine, versions
from corpus_teacher.standard_library import split_standard_library
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher, TeacherCollator
from corpus_teacher.training import (
    DEFAULT_STUDENT,
    DistillationConfig,
    TrainingResult,
    make_student,
    train_student,
)

ARM_NAMES = {
    "hard": "hard labels",
    "corpus": "corpus teacher",
    "label-smoothing": "label smoothing",
}
"""The arms in the order they are run, as people read them."""

_OUR_FILES = re.compile(
    r"index|report\.html|results\.json|\.index\.(building|old)-\w{8}|\.(report\.html|results\.json)\.partial"
)  # the last ones: what a demo that was killed has left
_UNDECIDED = (0.5, 2.0)  # nats of the teacher's target where a context is shown: neither certain nor clueless
_COPIED_TOKENS = 30  # a match of so many tokens is a copy, whatever its cause


@dataclass(frozen=True)
class DemoSettings:
    """The size of the demo.

    Attributes
    ----------
    vocab_size, length : int
        V of the tokenizer, T of the windows.
    max_bytes : int or None
        Of the corpus.
    max_order, top_k : int
        Of the teacher; 3 did better than 5 in one trial on this corpus, whose files repeat themselves.
    corpus_weight : float
        Of the blend: half label, half teacher.
    batch_size, max_steps : int
        Windows per step, and steps per student.
    learning_rate : float
        The same for every arm; chosen in trials with hard labels.
    num_evaluations, held_out_windows : int
        Points of a learning curve, and windows that each is measured on.
    """

    vocab_size: int = 4096
    length: int = 128
    max_bytes: int | None = 14_000_000
    max_order: int = 3
    top_k: int = 64
    corpus_weight: float = 0.5
    batch_size: int = 16
    max_steps: int = 240
    learning_rate: float = 2e-3
    num_evaluations: int = 10
    held_out_windows: int = 256


QUICK = DemoSettings(
    vocab_size=512,
    length=32,
    max_bytes=400_000,
    batch_size=8,
    max_steps=30,
    num_evaluations=3,
    held_out_windows=32,
)
"""For tests: everything happens, nothing is learnt."""


def run_demo(
    out: str | Path,
    *,
    seconds: float | None = None,
    seed: int = 0,
    quick: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the demo and write index/, report.html and results.json.

    Parameters
    ----------
    out : path
        A folder; it is made, and an earlier demo in it is replaced.
    seconds : float, optional
        For the three trainings together: fewer steps where the machine is slow, all arms alike, but at least a third
        of them. The figures then depend on the machine; by default they don't.
    seed : int
        Of the students and of the order of the data.
    quick : bool
        Do everything, but small.
    console : rich Console, optional
        Where progress and the table go; the terminal by default.

    Returns
    -------
    dict
        What results.json holds.

    Raises
    ------
    OutputError
        A folder that holds other things than a demo, or can't be written to.
    InputError
        A Python without its standard library's sources.
    """
    out, console = Path(out), console or Console()
    settings = QUICK if quick else DemoSettings()
    _prepare(out)
    began, stage_s = time.perf_counter(), dict[str, float]()
    with _progress(console) as progress, tempfile.TemporaryDirectory() as scratch:
        bars = _Bars(progress, stage_s)
        with bars.stage("read the standard library"):
            split = split_standard_library(max_bytes=settings.max_bytes)
        with bars.stage("train the tokenizer"):
            tokenizer = train_tokenizer((document.text for document in split.train), settings.vocab_size)
        with bars.stage("build the index", total=1.0) as advance:
            index = build_index_from_documents(
                split.train,
                tokenizer,
                out / "index",
                name="the standard library of Python " + platform.python_version(),
                overwrite=True,
                progress=advance,
            )
        held_out = tokenize_documents(split.held_out, tokenizer, folder=Path(scratch))
        teacher = CorpusTeacher(index, max_order=settings.max_order, top_k=settings.top_k)
        train_windows = TokenWindows(index.tokens, settings.length, seed=seed, doc_starts=index.doc_starts)
        held_out_windows = TokenWindows(
            held_out.tokens, settings.length, doc_starts=held_out.doc_starts, limit=settings.held_out_windows
        )
        with bars.stage("ask the teacher"):
            judged = _judge(teacher, train_windows, held_out_windows, settings)
        held_out_bytes = _predicted_bytes(held_out_windows, tokenizer)
        judged["bits_per_byte"] = judged["held_out_nats"] * judged["tokens"] / math.log(2) / held_out_bytes
        epsilon = epsilon_of_entropy(judged["blend_entropy_nats"], index.vocab_size)
        common: dict[str, Any] = {
            "per_device_train_batch_size": settings.batch_size,
            "per_device_eval_batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "seed": seed,
        }
        taught_on: dict[str, dict[str, Any]] = {
            "hard": {"alpha": 0.0},
            "corpus": {"alpha": settings.corpus_weight},
            "label-smoothing": {"alpha": 0.0, "label_smoothing_factor": epsilon},
        }
        steps = settings.max_steps
        if seconds is not None:
            with bars.stage("time a step"):
                steps = _affordable_steps(
                    settings, seconds, common, train_windows, held_out_windows, Path(scratch), index.vocab_size
                )
        results: dict[str, TrainingResult] = {}
        students: dict[str, transformers.PreTrainedModel] = {}
        for arm, name in ARM_NAMES.items():
            student = make_student(DEFAULT_STUDENT, vocab_size=index.vocab_size, seed=seed)
            config = DistillationConfig(
                str(Path(scratch, arm)),
                max_steps=steps,
                eval_strategy="steps",
                eval_steps=max(1, steps // settings.num_evaluations),
                logging_steps=max(1, steps // settings.num_evaluations),
                warmup_steps=max(1, steps // 20),
                **common,
                **taught_on[arm],
            )
            with bars.stage(f"student: {name}", total=steps) as advance:
                results[arm] = train_student(
                    config,
                    student,
                    train_windows,
                    held_out_windows,
                    teacher=teacher if arm == "corpus" else None,
                    held_out_bytes=held_out_bytes,
                    progress=advance,
                )
            students[arm] = student
        contexts = _contexts(teacher, students, held_out_windows, tokenizer, seed)
        answer = {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seed": seed,
            "settings": {**asdict(settings), "steps": steps, "epsilon": epsilon},
            "student": {**DEFAULT_STUDENT, "parameters": students["hard"].num_parameters()},
            "corpus": {
                "train_files": len(split.train),
                "train_bytes": split.train_bytes,
                "train_tokens": index.num_tokens,
                "held_out_files": [document.origin for document in split.held_out],
                "held_out_bytes": split.held_out_bytes,
                "held_out_tokens": len(held_out.tokens),
                "too_similar": split.too_similar,
            },
            "index": {"size_bytes": sum(index.size_bytes.values()), "fingerprint": index.fingerprint},
            "teacher": {**teacher.describe(), **judged},
            "arms": [{"arm": arm, "name": ARM_NAMES[arm], **asdict(result)} for arm, result in results.items()],
            "contexts": contexts,
            "machine": machine(),
            "versions": versions(),
        }
        index.close()
    answer["stage_s"] = {name: round(stage, 2) for name, stage in stage_s.items()}
    answer["total_s"] = round(time.perf_counter() - began, 2)
    write_json(out / "results.json", answer)
    write_report(answer, out / "report.html")
    _print(answer, out, console)
    return answer


def _prepare(out: Path) -> None:
    """Make the folder, or see that all it holds is an earlier demo."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        strange = sorted(name for name in os.listdir(out) if not _OUR_FILES.fullmatch(name))
    except OSError as error:
        raise OutputError(f"the folder {out} can't be made: {error.strerror or error}") from error
    if strange:
        raise OutputError(f"{out} holds {strange[0]!r}, which no demo wrote: choose another folder (`out`)")


def _judge(
    teacher: CorpusTeacher, train: TokenWindows, held_out: TokenWindows, settings: DemoSettings
) -> dict[str, Any]:
    """How good the teacher itself is on held-out text, and how soft its targets are on training text."""
    collate = TeacherCollator(teacher)
    batch = collate([train[i] for i in range(min(64, len(train)))])
    soft: SoftTargets = batch["soft_targets"]
    labels = shift_labels(batch["labels"]).reshape(-1)
    blend = soft.with_labels(labels, 1 - settings.corpus_weight).select(soft.valid)
    outside = CorpusTeacher(teacher.index, max_order=teacher.max_order, leave_out=None, top_k=teacher.top_k)
    batch = TeacherCollator(outside)([held_out[i] for i in range(len(held_out))])
    answer: SoftTargets = batch["soft_targets"]
    labels = shift_labels(batch["labels"]).reshape(-1)
    known = labels >= 0
    nats = -answer.probability_of(labels.clamp_min(0))[known].double().log()
    longest = teacher.index.match(batch["input_ids"].numpy()).match_len.reshape(-1)[known.numpy()]
    return {
        "held_out_nats": float(nats.mean()),
        "tokens": int(known.sum()),
        "mean_match_len": float(longest.mean()),
        "copied_share": float((longest >= _COPIED_TOKENS).mean()),
        "entropy_nats": soft.mean_entropy,
        "blend_entropy_nats": blend.mean_entropy,
        "cut_mass": float(soft.cut_mass[soft.valid].mean()),
    }


def _predicted_bytes(windows: TokenWindows, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of all tokens that a model predicts in the windows (all but the first of each)."""
    size = [len(tokenizer.backend.id_to_token(token) or "") for token in range(tokenizer.vocab_size)]
    size[tokenizer.end_of_document or 0] = 0  # a byte-level token has a character a byte, the end none
    lengths = np.array(size)
    return int(sum(lengths[windows[i]["input_ids"][1:]].sum() for i in range(len(windows))))


def _affordable_steps(
    settings: DemoSettings,
    seconds: float,
    common: dict[str, Any],
    train: TokenWindows,
    held_out: TokenWindows,
    scratch: Path,
    vocab_size: int,
) -> int:
    """Steps that three students can do in the time, by the speed of a few; at least a third of all."""
    config = DistillationConfig(str(scratch / "timing"), alpha=0.0, max_steps=12, warmup_steps=1, **common)
    few = TokenWindows(held_out.tokens, settings.length, limit=settings.batch_size)
    student = make_student(DEFAULT_STUDENT, vocab_size=vocab_size)
    ends: list[float] = []
    train_student(config, student, train, few, progress=lambda *_: ends.append(time.perf_counter()))
    step_s = float(np.median(np.diff(ends)))  # neither the first, which warms up, nor a hiccup
    # an evaluation costs a third of the steps that read as many tokens
    evaluation_s = settings.num_evaluations * len(held_out) / settings.batch_size * step_s / 3
    budget_s = seconds / len(ARM_NAMES) - evaluation_s
    steps = min(settings.max_steps, max(settings.max_steps // 3, int(budget_s / (1.1 * step_s))))
    return max(settings.num_evaluations, steps - steps % settings.num_evaluations)


def _contexts(
    teacher: CorpusTeacher,
    students: dict[str, transformers.PreTrainedModel],
    held_out: TokenWindows,
    tokenizer: Tokenizer,
    seed: int,
    shown: int = 6,
) -> list[dict[str, Any]]:
    """A few held-out positions in which something can be seen, and what each would say.

    The rule doesn't look at what truly follows: at least two tokens are matched, and the teacher is undecided between
    some continuations (entropy within `_UNDECIDED`). Of such places three that match less than the teacher's longest
    context and three that match all of it are drawn by chance, no two from one row.
    """
    rows = np.stack([held_out[i]["input_ids"] for i in range(len(held_out))])
    outside = CorpusTeacher(teacher.index, max_order=teacher.max_order, leave_out=None, top_k=teacher.top_k)
    target = outside(rows)
    match_len = target.match_len.reshape(rows.shape).numpy()
    entropy = target.entropy().reshape(rows.shape).numpy()
    usable = (entropy >= _UNDECIDED[0]) & (entropy <= _UNDECIDED[1])
    usable[:, : min(24, rows.shape[1] // 2)] = False
    usable[:, -1] = False
    generator = np.random.default_rng(seed)
    longest, chosen = teacher.max_order or 5, list[tuple[int, int]]()
    for low, high in ((2, longest), (longest, 1 << 30)):
        places = generator.permutation(np.argwhere(usable & (match_len >= low) & (match_len < high)))
        taken = {row for row, _ in chosen}
        first = {int(row): int(t) for row, t in places[::-1] if int(row) not in taken}  # of each row one
        order = [int(row) for row, _ in places if int(row) in first]
        chosen.extend((row, first[row]) for row in list(dict.fromkeys(order))[:3])
    answers = []
    for row, t in chosen:
        context = rows[row, : t + 1]
        target = outside(context)
        said = {"corpus": target.dense()[-1]}
        for arm in ("corpus", "hard"):
            with torch.no_grad():
                logits = students[arm](input_ids=torch.from_numpy(context)[None]).logits[0, -1]
            said["student" if arm == "corpus" else "hard student"] = logits.float().softmax(-1)
        truth = int(rows[row, t + 1])
        answers.append(
            {
                "context": tokenizer.decode(context[-64:]),
                "truth": tokenizer.token_text(truth),
                "match_len": int(target.match_len[-1]),
                "context_count": int(target.context_count[-1]),
                "entropy_nats": float(target.entropy()[-1]),
                "says": {
                    name: [
                        {
                            "token": tokenizer.token_text(int(token)),
                            "probability": float(probs[token]),
                            "is_truth": int(token) == truth,
                        }
                        for token in probs.topk(shown).indices
                    ]
                    for name, probs in said.items()
                },
                "probability_of_truth": {name: float(probs[truth]) for name, probs in said.items()},
            }
        )
    return answers


class _Bars:
    """One progress bar a stage, and the seconds that each took."""

    def __init__(self, progress: Progress, stage_s: dict[str, float]) -> None:
        self.progress = progress
        self.stage_s = stage_s

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Any]:
        """Show a stage; what it yields takes (stage or step, fraction or held-out loss)."""
        task = self.progress.add_task(name, total=total, note="")
        began = time.perf_counter()

        def advance(first: str | int, second: float | None = None) -> None:
            if isinstance(first, str):
                self.progress.update(task, completed=second or 0.0, note=first)
            else:
                note = f"held out {second:.3f} nats" if second else ""
                self.progress.update(task, completed=first, note=note)

        yield advance
        self.stage_s[name] = time.perf_counter() - began
        if not self.progress.console.is_terminal:  # no bars there: say at least what is done
            self.progress.console.print(f"{name}: {self.stage_s[name]:.1f} s")
        self.progress.update(task, total=total or 1, completed=total or 1)
        self.progress.stop_task(task)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=28),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def _print(answer: dict[str, Any], out: Path, console: Console) -> None:
    """The table at the end."""
    table = Table(title="Three students, one seed, the same tokens in the same order")
    table.add_column("student", no_wrap=True)
    for column in (
        "held-out\nnats/token",
        "held-out\nbits/byte",
        "seconds",
        "tokens/s",
        "teacher's share\nof the step",
    ):
        table.add_column(column, justify="right")
    for arm in answer["arms"]:
        table.add_row(
            arm["name"],
            f"{arm['held_out_nats']:.4f}",
            f"{arm['bits_per_byte']:.4f}",
            f"{arm['seconds']:.1f}",
            f"{arm['tokens_per_s']:,.0f}",
            f"{arm['teacher_share']:.1%}" if arm["arm"] == "corpus" else "–",
        )
    console.print(table)
    teacher = answer["teacher"]
    console.print(
        f"The corpus teacher by itself: {teacher['held_out_nats']:.4f} nats/token, "
        f"{teacher['bits_per_byte']:.4f} bits/byte. One seed, no interval: small differences may be chance.\n"
        f"{answer['total_s']:.0f} s in all. Report: {out / 'report.html'}"
    )
