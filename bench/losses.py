"""`python -m bench.losses`: time and memory of the losses beside torch's and the peers', forward and backward.

Every method's loss and gradients are first compared with a dense float64 reference on a few positions; one whose
answer differs is void. Then it takes turns with the baseline of its family, and its time is the median ratio to
the neighbouring run of the baseline. Its peak memory, beyond its inputs, is that of a process of its own.

Families: *logits* (the logits are given; baseline torch's F.cross_entropy) and *hidden* (the last hidden states and
the lm_head are given; baseline F.cross_entropy of F.linear). Peers join where they are installed: TRL's
generalized_jsd_loss, Liger-Kernel's chunked LigerFusedLinearJSDLoss. Runs on a GPU with --device cuda.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import machine
from bench.index.run import say
from bench.loss_methods import BY_NAME, METHODS, Method, Problem, Shape, logits_of
from corpus_teacher.targets.mixed import MixedTargets
from corpus_teacher.targets.soft import SoftTargets

GOALS = (
    ("soft_cross_entropy", "time_ratio", "torch cross_entropy", 1.15),
    ("soft, mixed form", "time_ratio", "torch cross_entropy", 1.0),
    ("soft_cross_entropy", "peak_bytes", "torch cross_entropy", 1.15),
    ("fused soft", "peak_bytes", "plain soft", 0.25),
)


@dataclass
class Row:
    """What was measured of one method; ratios are to the baseline of its family."""

    method: str
    family: str
    status: str = "ok"  # ok, void (its answer differs), skipped (not installed)
    error: float | None = None  # largest deviation from float64, relative to the largest value
    seconds: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    runs: int = 0
    time_ratio: float | None = None
    peak_bytes: int | None = None  # beyond the inputs, the gradients included
    peak_ratio: float | None = None
    teacher_bytes: int = 0


def check(method: Method, shape: Shape, device: str, tolerance: float = 1e-4) -> tuple[bool, float]:
    """Whether loss and gradients equal the float64 reference's, and the largest deviation."""
    problem, exact = Problem(shape, device), Problem(shape, device, torch.float64)
    for name in {*method.inputs, *(["teacher_head"] if method.teacher == "teacher_head" else [])}:
        value = getattr(problem, name)  # rounded once, to float32
        if isinstance(value, tuple):
            exact.__dict__[name] = tuple(part.double() for part in value)
        else:
            exact.__dict__[name] = value.detach().double().requires_grad_()
    actual = method.gradients(problem)
    logits = exact.logits if method.family == "logits" else logits_of(exact)
    loss = method.reference(logits, exact)
    expected = [loss.detach(), *torch.autograd.grad(loss, [getattr(exact, name) for name in method.inputs])]
    errors = [float((a.double() - e).abs().max() / e.abs().max()) for a, e in zip(actual, expected, strict=True)]
    return max(errors) < tolerance, max(errors)


def timed(method: Method, problem: Problem) -> float:
    """Seconds of one forward and backward pass."""
    wait = torch.cuda.synchronize if problem.device == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    method.gradients(problem)
    wait()
    return time.perf_counter() - started


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def peak(method: Method, shape: Shape, device: str) -> dict[str, int]:
    """Peak memory beyond the inputs, and the bytes of the teacher's word; for a process of its own."""
    method.gradients(Problem(Shape(64, 512, 4, 16), device))  # libraries loaded, threads started
    problem = Problem(shape, device)
    _ = [getattr(problem, name) for name in (*method.inputs, "labels", *filter(None, [method.teacher]))]
    if method.teacher == "dense_logits":
        del problem.dense
    teacher = getattr(problem, method.teacher) if method.teacher else ()
    if isinstance(teacher, MixedTargets):  # the table is there once for all batches
        teacher = (*vars(teacher.pairs).values(), teacher.row_offsets, teacher.rows, teacher.coefficients)
    parts = vars(teacher).values() if isinstance(teacher, SoftTargets) else teacher
    parts = [parts] if isinstance(parts, Tensor) else list(parts)
    teacher_bytes = sum(part.numel() * part.element_size() for part in parts)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = method.gradients(problem)
        after = torch.cuda.max_memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
        before = _status_bytes("VmRSS")
        kept = method.gradients(problem)
        after = _status_bytes("VmHWM")
    del kept
    return {"peak_bytes": after - before, "teacher_bytes": teacher_bytes}


def peak_in_a_process(method: Method, shape: Shape, device: str, threads: int) -> dict[str, int]:
    """`peak` of a fresh process."""
    command = [sys.executable, "-m", "bench.losses", "--peak-of", method.name, "--device", device]
    command += ["--threads", str(threads)]
    command += [part for key, value in asdict(shape).items() for part in (f"--{key.replace('_', '-')}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{method.name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package.replace("-", "_")) is not None


def measure(shape: Shape, device: str, runs: int, threads: int, names: list[str]) -> list[Row]:
    """All rows, the answers judged before anything is timed."""
    rows = {name: Row(name, BY_NAME[name].family) for name in names}
    small = Shape(min(24, shape.positions), shape.vocab_size, shape.entries, shape.width)
    for name, row in rows.items():
        package = BY_NAME[name].package
        if package and not _installed(package):
            row.status = f"skipped: pip install {package}"
            continue
        right, row.error = check(BY_NAME[name], small, device)
        row.status = "ok" if right else "void: its answer differs"
    good = [row for row in rows.values() if row.status == "ok"]
    for family in dict.fromkeys(row.family for row in good):
        group = [row for row in good if row.family == family]
        baseline = next(method for method in METHODS if method.family == family)
        for row in group:
            say(f"{row.method}: memory")
            for key, value in peak_in_a_process(BY_NAME[row.method], shape, device, threads).items():
                setattr(row, key, value)
        problem = Problem(shape, device)
        times: dict[str, list[tuple[float, float]]] = {row.method: [] for row in group}
        for turn in range(runs + 1):
            say(f"{family}: turn {turn} of {runs}")
            for row in group:
                pair = timed(baseline, problem), timed(BY_NAME[row.method], problem)
                if turn:  # the first one makes the inputs
                    times[row.method].append(pair)
        for row in group:
            own = [second for _, second in times[row.method]]
            row.seconds, row.low_s, row.high_s, row.runs = statistics.median(own), min(own), max(own), len(own)
            row.time_ratio = statistics.median(second / first for first, second in times[row.method])
        base_peak = rows[baseline.name].peak_bytes if baseline.name in rows else None
        for row in group:
            row.peak_ratio = row.peak_bytes / base_peak if base_peak and row.peak_bytes else None
    return list(rows.values())


def render(rows: list[Row]) -> str:
    """The table for people."""
    lines = []
    for family in dict.fromkeys(row.family for row in rows):
        lines += ["", f"{family:<26}      s   × time   peak MB   × peak   teacher MB   error"]
        for row in (row for row in rows if row.family == family):
            if row.seconds is None or row.peak_bytes is None or row.peak_ratio is None:
                lines.append(f"{row.method:<26}  {row.status}")
                continue
            lines.append(
                f"{row.method:<26} {row.seconds:6.3f} {row.time_ratio:8.3f} {row.peak_bytes / 1e6:9.0f} "
                f"{row.peak_ratio:8.3f} {row.teacher_bytes / 1e6:12.1f} {row.error:7.0e}"
            )
    return "\n".join(lines)


def judged(rows: list[Row]) -> list[dict[str, Any]]:
    """The goals, what was measured, and whether they are met."""
    found = []
    by_name = {row.method: row for row in rows}
    for name, figure, beside, most in GOALS:
        if name in by_name and beside in by_name and by_name[name].seconds is not None:
            mine, other = by_name[name], by_name[beside]
            ratio = mine.time_ratio if figure == "time_ratio" else mine.peak_bytes / other.peak_bytes
            found.append({"method": name, "figure": figure, "beside": beside, "ratio": ratio, "at_most": most})
            found[-1]["met"] = ratio <= most
    return found


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m bench.losses", description="The losses beside torch's and peers'.")
    for key, value in asdict(Shape()).items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=int, default=value, help=f"default: {value:,}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU (default: 1)")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs a method (default: 5)")
    parser.add_argument("--only", nargs="*", choices=tuple(BY_NAME), help="which methods (default: all)")
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    parser.add_argument("--peak-of", choices=tuple(BY_NAME), help="only the peak memory of one method, as JSON")
    return parser.parse_args()


def main() -> None:
    """Runs what the options say; the table on stdout, and one line of JSON at the end."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    shape = Shape(arguments.positions, arguments.vocab_size, arguments.entries, arguments.width)
    if arguments.peak_of:
        print(json.dumps(peak(BY_NAME[arguments.peak_of], shape, arguments.device)))
        return
    where = machine.describe() | {"torch": torch.__version__, "device": arguments.device, "threads": arguments.threads}
    where["versions"] = {name: importlib.metadata.version(name) for name in ("trl", "liger-kernel") if _installed(name)}
    if arguments.device == "cuda":
        where["gpu"] = torch.cuda.get_device_name()
    rows = measure(shape, arguments.device, arguments.runs, arguments.threads, arguments.only or list(BY_NAME))
    result = {"machine": where, "shape": asdict(shape), "goals": judged(rows), "rows": [asdict(row) for row in rows]}
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(render(rows), "\n")
    for goal in result["goals"]:
        print(
            f"{'met' if goal['met'] else 'MISSED'}: {goal['method']}, {goal['figure']} beside {goal['beside']} "
            f"{goal['ratio']:.3f}, at most {goal['at_most']}"
        )
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
