"""What `from corpus_teacher import …` gives, and when it is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

import corpus_teacher


@pytest.mark.parametrize("name", [name for name in corpus_teacher.__all__ if name != "__version__"])
def test_each_name_is_there(name: str) -> None:
    assert getattr(corpus_teacher, name).__name__ == name


def test_nothing_heavy_comes_before_it_is_asked_for() -> None:
    code = (
        "import sys, corpus_teacher\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "corpus_teacher.open_corpus\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        corpus_teacher.nothing  # noqa: B018
