"""Messages of the library speak of arguments of Python: options of the command line are the command line's to name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import corpus_index
import pytest
from corpus_index import ESTIMATORS

import corpus_teacher
from corpus_teacher.cli.options import ESTIMATOR_NAMES, with_options

_OPTION = re.compile(r"(?:^|[\s(\"'`])--[a-z]")
_FILES = [
    path
    for package in (corpus_teacher, corpus_index)
    for path in sorted(Path(str(package.__file__)).parent.rglob("*.py"))
    if "cli" not in path.relative_to(Path(str(package.__file__)).parent).parts
]


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """String constants that are no docstrings, parts of f-strings included."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node


def test_no_message_outside_of_the_command_line_names_an_option() -> None:
    found = []
    for path in _FILES:
        for node in texts(ast.parse(path.read_text(encoding="utf-8"))):
            if _OPTION.search(node.value) and "pip install" not in node.value and path.parent.name != "pages":
                found.append(f"{path}:{node.lineno}: {node.value!r}")
    assert found == []


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("max_order -1 is too small", "--max-order -1 is too small"),
        ("name one (`tokenizer`)", "name one (--tokenizer)"),
        ("say overwrite=True, or out='x'", "say --overwrite, or --out x"),
        ("set errors to skip to leave it out", "pass --errors skip to leave it out"),
        ("/tmp/max_order/i.max_order.json is no index: out", "/tmp/max_order/i.max_order.json is no index: out"),
        ("'max_order' of the file", "'max_order' of the file"),
        ("i exists: ask to overwrite it", "i exists: say --overwrite to overwrite it"),
    ],
)
def test_the_command_line_puts_its_options_in_their_place(sentence: str, expected: str) -> None:
    options = {name: "--" + name.replace("_", "-") for name in ("max_order", "tokenizer", "overwrite", "out", "errors")}
    assert with_options(sentence, options) == expected
    assert with_options(sentence, {}) == sentence


def test_help_names_all_estimators() -> None:
    assert ESTIMATOR_NAMES == ESTIMATORS
