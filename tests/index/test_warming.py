"""Kernels compiled ahead: what is compiled is what will be called, and nothing is compiled twice."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import corpus_index
import pytest
from corpus_index import _kernels
from corpus_index._kernels import jit

import corpus_teacher

pytestmark = pytest.mark.slow


def _run(code: str, cache: Path) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


_RECORDED = """
import json, tempfile
from collections import Counter
import numpy as np
from corpus_index import build_index
from corpus_index._kernels.jit import recorded
from corpus_index.warming import all_jobs, as_if_large

def built(folder, vocab_size):
    "What building as a large corpus is built calls."
    rng = np.random.default_rng(1)
    with as_if_large(), recorded() as calls:
        for number, tokens in enumerate([rng.integers(0, 9, 4_000), np.tile(rng.integers(0, 9, 300), 9)]):
            build_index(tokens.astype(np.uint32), f"{folder}/{number}", vocab_size=vocab_size, workers=2 + number)
    return set(calls)

def asked(folder, vocab_size):
    "What questions call that warm-up doesn't ask in this way."
    tokens = np.random.default_rng(1).integers(0, 9, 1_200).astype(np.uint32)
    rows = tokens[:20].reshape(2, 10).astype(np.int64)
    following = np.roll(rows, -1, axis=1)
    with recorded() as calls:
        index = build_index(tokens, folder + "/index", doc_starts=[0, 500, 500, 1_200], vocab_size=vocab_size)
        index.next_tokens_batch(rows, starts_document=True)
        index.next_tokens([3])
        for estimator in ("absolute-discounting", "kneser-ney", "ppm-c"):
            for options in ({}, {"leave_out": "self"}, {"leave_out": "document", "positions": np.array([0, 10])}):
                index.smoothed_targets(rows, following, estimator=estimator, max_order=3, **options)
                index.smoothed_targets(rows, following, estimator=estimator, only_last=True, top_p=0.5, **options)
                index.next_probabilities(rows, following, estimator=estimator, max_order=3, **options)
                index.mixed_targets(rows, following, estimator=estimator, max_order=3, **options)
        index.smoothed_targets(rows)
    return set(calls)

told = {}
for wide in (False, True):
    jobs = all_jobs(wide)
    for work, vocab_sizes in ((built, (300, 67_000)), (asked, (5_000, 67_000))):
        with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
            calls = work(folder, vocab_sizes[wide])
        told[f"{work.__name__} {wide}"] = len(calls), sorted(map(str, calls - set(jobs)))
    if not wide:
        told["forms"] = Counter(name for _, name, _ in jobs)
        told["compact"] = [name for _, name, types in jobs if "Compact" in str(types)]
jobs = all_jobs(False, compact=True)
told["there"] = sum("Compact" in str(types) for _, _, types in jobs)
told["known"] = [job[:2] for job in jobs]
print(json.dumps(told))
"""


def test_what_others_call_is_what_is_compiled_ahead(tmp_path: Path) -> None:
    """As a process tells that has compiled nothing, or calls would be missing: half a minute, so it is asked once."""
    told: dict[str, Any] = json.loads(_run(_RECORDED, tmp_path))
    for work, least in ("built", 20), ("asked", 30):
        for wide in (False, True):
            calls, unknown = told[f"{work} {wide}"]
            assert unknown == [], (work, wide)
            assert calls > least, (work, wide)

    # Each form is compiled by every user: arrays of files and of memory share one, documents left out or not don't.
    forms = told["forms"]
    assert forms["mixed_targets"] == 4
    assert {forms[name] for name in ("flat_targets", "whole_targets", "sampled_targets")} == {2}
    once = "match_rows", "exclusion_targets", "evidence", "measure", "lost_by_documents", "label_losses", "row_classes"
    assert {forms[name] for name in once} == {1}
    assert told["compact"] == []  # compact ones only where they are asked for
    assert told["there"] > 10

    twins = {("left_out", "tally_gone"), ("rules", "cut_of"), ("rules", "node_weights")}  # which tests alone ask
    known = set(map(tuple, told["known"]))
    assert _called_from_python() - known == {(f"{_kernels.__name__}.{module}", name) for module, name in twins}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_time_all_is_there(tmp_path: Path, workers: int) -> None:
    code = """
from corpus_index import compiling_s, verify_index, warm_up, warming
warming.GROUPS = {"quick to compile": lambda index: verify_index(index.path)}
done = warm_up(workers=WORKERS, wide=False)
assert done.compiled == 0 or (compiling_s() > 0) == (WORKERS == 1)
print(done.compiled, done.cached, done.folder)
""".replace("WORKERS", str(workers))
    compiled, cached, folder = _run(code, tmp_path).split()
    assert int(compiled) > 2
    assert cached == "0"
    assert Path(folder).parent == tmp_path
    assert _run(code, tmp_path).split() == ["0", compiled, folder]


def test_other_processes_compile_what_is_named(tmp_path: Path) -> None:
    """One for each part."""
    parts = "'first_misstep', 'fill_shared'"
    _run(f"from corpus_index.warming import compile_named; compile_named('files', '0', {parts})", tmp_path)
    code = """
from corpus_index._kernels import checks
from corpus_index.warming import jobs_of
jobs = {name: types for _, name, types in jobs_of("files", False)}
for name in ("first_misstep", "fill_shared", "first_disorder"):
    print(getattr(checks, name).is_cached(jobs[name]))
"""
    assert _run(code, tmp_path).split() == ["True", "True", "False"]


def _called_from_python() -> set[tuple[str, str]]:
    """Module and name of each kernel that a file outside of the kernels' package names."""
    named: set[tuple[str, str]] = set()
    for root in (Path(corpus_index.__file__).parent, Path(corpus_teacher.__file__).parent):
        for file in root.rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            modules = {}
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and "_kernels" in file.parts:
                    continue
                if isinstance(node, ast.ImportFrom) and node.module == _kernels.__name__:
                    modules |= {alias.asname or alias.name: alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(_kernels.__name__ + "."):
                    named |= {(str(node.module), alias.name) for alias in node.names}
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                    named.add((f"{_kernels.__name__}.{modules[node.value.id]}", node.attr))
    return {(module, name) for module, name in named if isinstance(getattr(import_module(module), name), jit.Kernel)}
