"""Compiled kernels: kept between processes, and compiled anew when a helper in another file changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import corpus_index._kernels.jit as jit
import pytest

pytestmark = pytest.mark.slow

_CALLER = """
from kernels.helper import answer
from kernels.jit import kernel


@kernel()
def ask(x):
    return answer(x)
"""
_HELPER = """
from kernels.jit import kernel


@kernel()
def answer(x):
    return x + {added}
"""


def _run(folder: Path) -> tuple[int, int]:
    """What a fresh process answers, and how many of its two kernels' machine code came from the cache."""
    code = (
        "from kernels.caller import ask, answer; print(ask(0));"
        "print(sum(len(f.stats.cache_hits) for f in (ask, answer)))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    answer, hits = done.stdout.split()
    return int(answer), int(hits)


def test_the_cache_sees_an_edit_in_a_helpers_file(tmp_path: Path) -> None:
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jit.py").write_text(Path(jit.__file__).read_text())
    (package / "caller.py").write_text(_CALLER)
    (package / "helper.py").write_text(_HELPER.format(added=1))
    assert _run(tmp_path) == (1, 0)
    assert _run(tmp_path) == (1, 1)
    (package / "helper.py").write_text(_HELPER.format(added=2))
    assert _run(tmp_path) == (2, 0)


def test_every_kernel_is_compiled_so() -> None:
    files = Path(jit.__file__).parent.glob("*.py")
    assert [file.name for file in files if "njit" in file.read_text()] == ["jit.py"]
