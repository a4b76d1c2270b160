"""What a result came from: versions, the commit, the machine; recorded beside every result that is kept."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "numba")
"""Whose versions the results depend on."""


def versions() -> dict[str, str]:
    """Versions of corpus-teacher, of Python, and of `PACKAGES`."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    return {
        "corpus-teacher": str(sys.modules["corpus_teacher"].__version__),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


@cache
def commit() -> str | None:
    """The commit of the checkout that runs; None for an installed package."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def machine() -> dict[str, Any]:
    """System, processor and cores; threads and device as well where torch is loaded."""
    described: dict[str, Any] = {"system": platform.platform(), "processor": _processor(), "cores": available_cores()}
    torch = sys.modules.get("torch")
    if torch is not None:
        described["threads"] = torch.get_num_threads()
        described["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return described


@cache
def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found.group(1) if found else platform.processor()


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
