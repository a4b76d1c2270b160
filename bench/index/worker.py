"""One contender in a process of its own: `python -m bench.index.worker JOB.json` builds, opens and asks.

A process of its own makes its peak of memory its own, lets a contender crash alone, and pins it to its cores
before any library starts threads.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpora import Corpus
from bench.index.contender import Contender
from bench.index.judge import sample_positions


def pin(cores: int) -> None:
    """Keeps this process and its children to the first `cores` cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def status_bytes(field: str) -> int:
    """A field of /proc/self/status, VmRSS or VmHWM, in bytes; 0 where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def peak_bytes() -> int:
    """The peak resident memory of this process, or of its largest child.

    Its own from VmHWM: ru_maxrss starts at what the process was forked from, here the bench itself.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    own = status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)


def cpu_s() -> float:
    """Processor time of this process and of the children that it waited for, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def build(contender: Contender, corpus: Corpus, folder: Path, cores: int) -> tuple[Any, dict[str, Any]]:
    """A fresh build: the index where it lives in memory, and what it took."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contender.prepare(corpus, folder)
    baseline = status_bytes("VmRSS")
    started, started_cpu = time.perf_counter(), cpu_s()
    built = contender.build(corpus, folder, cores)
    took = time.perf_counter() - started
    report = {
        "build_s": took,
        "cpu_share": (cpu_s() - started_cpu) / took / cores,
        "peak_bytes": peak_bytes(),
        "baseline_bytes": baseline,
        "size_bytes": contender.sizes(corpus, folder),
        "wrong": contender.check_build(corpus, built),
    }
    return built, report


def opened(contender: Contender, corpus: Corpus, folder: Path, runs: int) -> tuple[Any, list[float]]:
    """The index, and the seconds of each opening; the slow ones are opened once."""
    seconds: list[float] = []
    index = None
    while len(seconds) < runs and sum(seconds) < 2.0:
        index = None
        started = time.perf_counter()
        index = contender.open(corpus, folder)
        seconds.append(time.perf_counter() - started)
    return index, seconds


def queries(contender: Contender, index: Any, job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The rates of every section and slice, and the answers for the judge."""
    rates: dict[str, Any] = {}
    answers: dict[str, np.ndarray] = {}
    with np.load(job["rows_path"]) as stored:
        slices = {name: stored[name] for name in stored.files}
    for section in job["sections"]:
        for name, rows in slices.items():
            if section == "threads":
                for threaded in ("match", "continuations"):
                    one, two = contender.thread_rates(threaded, index, rows, runs=job["runs"])  # type: ignore[attr-defined]
                    rates[f"threads/{name}/{threaded}"] = {"one": one, "two": two}
                continue
            if section not in contender.sections:
                continue
            sample = sample_positions(rows.shape, section)
            for part, values in contender.answers(section, index, rows, sample)._asdict().items():
                answers[f"{section}/{name}/{part}"] = values
            rates[f"{section}/{name}"] = contender.rates(
                section, index, rows, runs=job["runs"], budget_s=job["budget_s"]
            )
    return rates, answers


def main(job_path: Path) -> None:
    """Does what the job says: some of warm_up, build, open, query."""
    from bench.index.contenders import BY_NAME

    job = json.loads(job_path.read_text())
    pin(job["cores"])
    contender = BY_NAME[job["contender"]]
    paths = {key: Path(value) for key, value in job["corpus"].items() if key.endswith("_path")}
    corpus = Corpus(**{**job["corpus"], **paths})
    folder = Path(job["folder"])
    result: dict[str, Any] = {}
    contender.warm_up(job_path.parent)
    index = None
    if "build" in job["phases"]:
        index, result["build"] = build(contender, corpus, folder, job["cores"])
    if "query" in job["phases"]:
        if not contender.in_memory:
            index, result["open_s"] = opened(contender, corpus, folder, runs=7)
        result["rates"], answers = queries(contender, index, job)
        np.savez_compressed(job["answers_path"], **answers)  # type: ignore[arg-type]
    Path(job["result_path"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
