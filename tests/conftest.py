"""What every test runs under: a numba cache and no network.

A run gets a cache directory of its own, made before anything imports numba, shared by xdist's workers and by the
subprocesses of tests, and removed at the end. A caller who sets NUMBA_CACHE_DIR (not empty), as the Makefile does,
keeps that one instead: what is in it is compiled anew after an edit in any kernel's source, or under other checks.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_made_cache_dir: str | None = None
_made_cache_home: str | None = None

if "CORPUS_TEACHER_TEST_CACHE" not in os.environ:  # stamps of checked indexes are no tests' to leave in a user's folder
    os.environ["CORPUS_TEACHER_TEST_CACHE"] = _made_cache_home = tempfile.mkdtemp(prefix="corpus-teacher-cache-")
    os.environ["XDG_CACHE_HOME"] = _made_cache_home

if not os.environ.get("NUMBA_CACHE_DIR"):  # a worker inherits the controller's
    _made_cache_dir = tempfile.mkdtemp(prefix="corpus-teacher-numba-")
    os.environ["NUMBA_CACHE_DIR"] = _made_cache_dir

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "TOKENIZERS_PARALLELISM", "false"
)  # a fork after use of its threads warns, and warnings are errors
os.environ.setdefault("MPLBACKEND", "Agg")

os.fsync = lambda descriptor: None  # no test loses its power, and thousands of small files would wait for the disk


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` leaves out as slow: `slow.txt`, beside the marks that stand at tests themselves."""
    folder = Path(__file__).parent
    slow = set((folder / "slow.txt").read_text(encoding="utf-8").split())
    for item in items:
        if item.path.is_relative_to(folder):
            name = f"{item.path.relative_to(folder).as_posix()}::{item.name.partition('[')[0]}"
            if name in slow:
                item.add_marker(pytest.mark.slow)


_modules_frozen = 0


def pytest_runtest_setup() -> None:
    """What imports have left is no garbage: each full collection, one a training, would walk through all of it."""
    global _modules_frozen
    if len(sys.modules) > _modules_frozen + 20:
        _modules_frozen = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache that this run made."""
    if _made_cache_dir is not None:
        shutil.rmtree(_made_cache_dir, ignore_errors=True)
    if _made_cache_home is not None:
        shutil.rmtree(_made_cache_home, ignore_errors=True)


# "same" draws the same examples every run, so that a lane that was green stays green. "quick" is for `make check` and
# the bounds-checked lane; "explore" looks for new examples, "nightly" for many of them.
_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("same", derandomize=True, max_examples=30, **_COMMON)
settings.register_profile("quick", derandomize=True, max_examples=8, **_COMMON)
settings.register_profile("nightly", max_examples=2000, print_blob=True, **_COMMON)
settings.register_profile("explore", max_examples=60, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
