"""Kernels go through fewer passes than numba's: none of them holds what a pass that is left out is there for."""

from __future__ import annotations

import ast
from importlib import resources

import numpy as np
import pytest
from corpus_index._kernels.front_end import Flags, Pipeline
from corpus_index._kernels.jit import kernel
from numba.core import compiler

_NEEDS_A_PASS = (
    ast.FunctionDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.With,
    ast.Yield,
    ast.YieldFrom,
    ast.Raise,
)
_NAMES = {"isinstance", "hasattr", "literal_unroll", "literally", "print"}


def _kernels() -> list[ast.FunctionDef]:
    found = []
    for file in resources.files("corpus_index._kernels").iterdir():
        if file.name.endswith(".py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef):
                    calls = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
                    if any(isinstance(call, ast.Name) and call.id == "kernel" for call in calls):
                        found.append(node)
    return found


def _needs_a_pass(function: ast.FunctionDef) -> bool:
    inside = [node for statement in function.body for node in ast.walk(statement)]
    return any(isinstance(node, _NEEDS_A_PASS) or (isinstance(node, ast.Name) and node.id in _NAMES) for node in inside)


def test_no_kernel_needs_what_is_left_out() -> None:
    kernels = _kernels()
    assert len(kernels) > 150
    assert [each.name for each in kernels if _needs_a_pass(each)] == []


@pytest.mark.parametrize("body", ["return [x for _ in y]", "return (lambda z: z)(x)", "with y: return x", "print(x)"])
def test_the_check_sees_what_it_looks_for(body: str) -> None:
    (function,) = ast.parse(f"def f(x, y):\n    {body}").body
    assert isinstance(function, ast.FunctionDef)
    assert _needs_a_pass(function)


def test_kernels_take_this_way_and_answer_as_python_does() -> None:
    @kernel()
    def halves(values, none):
        total = 0
        for i in range(values.size):
            if none is None:
                total += values[i] // 2
            else:
                total += none[i]
        return total

    values = np.arange(9)
    assert halves._compiler.pipeline_class is Pipeline
    assert halves(values, None) == halves.py_func(values, None)
    assert halves(values, values) == halves.py_func(values, values)


def test_flags_are_numbas_compared_faster() -> None:
    plain, ours = compiler.Flags(), Flags()
    assert ours == plain
    assert hash(ours) == hash(plain)
    ours.nrt = True
    assert ours != plain
    assert ours != Flags()
    plain.nrt = True
    assert ours == plain
    assert type(ours.copy()) is Flags
    assert ours.copy() == ours
