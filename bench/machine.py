"""Where and with what the figures were taken."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from bench.index.contenders import ALL


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def describe() -> dict[str, Any]:
    """Machine, load at the start, versions."""
    import numba

    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "load_at_start": os.getloadavg()[0],
        "versions": {c.name: c.version() for c in ALL if c.missing() is None},
    }
