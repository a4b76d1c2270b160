"""Starts a worker for one job, watches its memory, and reads its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.corpora import Corpus

THREAD_LIMITS = (
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class WorkerFailed(Exception):
    """A contender crashed, or refused; the message is the end of what it printed."""


def anonymous_bytes(pid: int) -> int:
    """Memory of a process and its children that no file backs; 0 where the system doesn't tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    own = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem"))]
    return sum(own) + sum(anonymous_bytes(int(child)) for child in children)


def run_job(
    contender: str,
    corpus: Corpus,
    work: Path,
    *,
    phases: list[str],
    cores: int = 1,
    worker: str = "bench.index.worker",
    timeout_s: float,
    **job: Any,
) -> dict[str, Any]:
    """Runs a worker on a job; its result, with `peak_anonymous_bytes` of the whole process added."""
    scratch = Path(tempfile.mkdtemp(dir=work, prefix=f"{contender}-"))
    job_path, log_path, result_path = scratch / "job.json", scratch / "log.txt", scratch / "result.json"
    fields = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(corpus).items()}
    job |= {
        "contender": contender,
        "corpus": fields,
        "phases": phases,
        "cores": cores,
        "result_path": str(result_path),
    }
    job_path.write_text(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in job.items()}))
    root = Path(__file__).resolve().parents[2]  # the tree that the bench stands in is measured, whatever is installed
    environment = {**os.environ, **dict.fromkeys(THREAD_LIMITS, str(cores)), "OMP_WAIT_POLICY": "passive"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(root), str(root / "index"), os.environ.get("PYTHONPATH")])
    )
    environment.setdefault("NUMBA_CACHE_DIR", str(work / "numba"))
    peak, started = 0, time.monotonic()
    with open(log_path, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", worker, str(job_path)], stdout=log, stderr=log, env=environment
        )
        try:
            while process.poll() is None:
                peak = max(peak, anonymous_bytes(process.pid))
                if time.monotonic() - started > timeout_s:
                    raise WorkerFailed(f"took longer than {timeout_s:.0f} s")
                time.sleep(0.02)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0 or not result_path.exists():
        lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
        raise WorkerFailed(f"exit code {process.returncode}: {' / '.join(lines[-2:])}"[:300])
    return {**json.loads(result_path.read_text()), "peak_anonymous_bytes": peak}
