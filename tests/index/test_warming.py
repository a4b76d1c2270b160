"""Kernels compiled ahead: what is compiled is what will be called, and nothing is compiled twice."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

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


_BUILT = """
import tempfile
import numpy as np
from corpus_index import build_index
from corpus_index._kernels.jit import recorded
from corpus_index.warming import as_if_large
from corpus_index.warming import all_jobs

known = set(all_jobs(WIDE))
rng = np.random.default_rng(1)
with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"), as_if_large(), recorded() as calls:
    vocab_size = 67_000 if WIDE else 300
    for number, tokens in enumerate([rng.integers(0, 9, 4_000), np.tile(rng.integers(0, 9, 300), 9)]):
        index = build_index(tokens.astype(np.uint32), f"{folder}/{number}", vocab_size=vocab_size, workers=2 + number)
unknown = set(calls) - known
assert not unknown, unknown
print(len(set(calls)))
"""


@pytest.mark.parametrize("wide", [False, True])
def test_what_a_large_build_calls_is_compiled_ahead(tmp_path: Path, wide: bool) -> None:
    assert int(_run(_BUILT.replace("WIDE", str(wide)), tmp_path)) > 20


_ASKED = """
import tempfile
import numpy as np
from corpus_index import build_index
from corpus_index._kernels.jit import recorded
from corpus_index.warming import all_jobs

known = set(all_jobs(WIDE))
with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"), recorded() as calls:
    tokens = np.random.default_rng(1).integers(0, 9, 1_200).astype(np.uint32)
    vocab_size = 67_000 if WIDE else 5_000
    index = build_index(tokens, folder + "/index", doc_starts=[0, 500, 500, 1_200], vocab_size=vocab_size)
    rows = tokens[:20].reshape(2, 10).astype(np.int64)
    following = np.roll(rows, -1, axis=1)
    index.next_tokens_batch(rows, starts_document=True)
    index.next_tokens([3])
    for estimator in ("absolute-discounting", "kneser-ney", "ppm-c"):
        for options in ({}, {"leave_out": "self"}, {"leave_out": "document", "positions": np.array([0, 10])}):
            index.smoothed_targets(rows, following, estimator=estimator, max_order=3, **options)
            index.smoothed_targets(rows, following, estimator=estimator, only_last=True, top_p=0.5, **options)
            index.next_probabilities(rows, following, estimator=estimator, max_order=3, **options)
            index.mixed_targets(rows, following, estimator=estimator, max_order=3, **options)
    index.smoothed_targets(rows)
unknown = set(calls) - known
assert not unknown, unknown
print(len(set(calls)))
"""


@pytest.mark.parametrize("wide", [False, True])
def test_what_others_call_is_what_is_compiled_ahead(tmp_path: Path, wide: bool) -> None:
    assert int(_run(_ASKED.replace("WIDE", str(wide)), tmp_path)) > 30


_FORMS = """
from collections import Counter
from corpus_index.warming import all_jobs

jobs = all_jobs(False)
print(dict(Counter(name for _, name, _ in jobs)))
print([name for _, name, types in jobs if "Compact" in str(types)])
print(sum("Compact" in str(types) for _, _, types in all_jobs(False, compact=True)) > 10)
"""


def test_the_largest_kernels_have_few_forms_and_compact_ones_are_asked_for(tmp_path: Path) -> None:
    """Each form is compiled by every user: arrays of files and of memory share one, documents left out or not don't."""
    forms, compact, there = map(ast.literal_eval, _run(_FORMS, tmp_path).splitlines())
    assert forms["mixed_targets"] == 4
    assert {forms[name] for name in ("flat_targets", "whole_targets", "sampled_targets")} == {2}
    once = "match_rows", "exclusion_targets", "evidence", "measure", "lost_by_documents", "label_losses", "row_classes"
    assert {forms[name] for name in once} == {1}
    assert compact == []
    assert there


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_time_all_is_there(tmp_path: Path, workers: int) -> None:
    code = """
from corpus_index import compiling_s, warm_up, warming
group = "near-duplicates" if WORKERS == 1 else "files"
warming.GROUPS = {group: warming.GROUPS[group]}
done = warm_up(workers=WORKERS, wide=False)
assert done.compiled == 0 or (compiling_s() > 0) == (WORKERS == 1)
print(done.compiled, done.cached, done.folder)
""".replace("WORKERS", str(workers))
    compiled, cached, folder = _run(code, tmp_path).split()
    assert int(compiled) > 4
    assert cached == "0"
    assert Path(folder).parent == tmp_path
    assert _run(code, tmp_path).split() == ["0", compiled, folder]


def test_another_process_compiles_what_is_named(tmp_path: Path) -> None:
    _run("from corpus_index.warming import compile_named; compile_named('files', '0', 'first_misstep')", tmp_path)
    code = """
from corpus_index._kernels import checks
from corpus_index.warming import jobs_of
(types,) = [types for _, name, types in jobs_of("files", False) if name == "first_misstep"]
print(checks.first_misstep.is_cached(types), checks.first_disorder.is_cached(types))
"""
    assert _run(code, tmp_path).split() == ["True", "False"]


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


def test_every_kernel_that_python_calls_is_compiled_ahead(tmp_path: Path) -> None:
    twins = {("left_out", "tally_gone"), ("rules", "cut_of"), ("rules", "node_weights")}  # which tests alone ask
    code = "from corpus_index.warming import all_jobs; print({job[:2] for job in all_jobs(False, compact=True)})"
    known = ast.literal_eval(_run(code, tmp_path))  # where none is compiled: those would not be recorded
    assert _called_from_python() - known == {(f"{_kernels.__name__}.{module}", name) for module, name in twins}
