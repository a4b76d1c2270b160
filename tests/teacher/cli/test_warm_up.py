"""`corpus-teacher warm-up` says what it compiled and where that is kept."""

from __future__ import annotations

import json

import pytest
from corpus_index import Warmed
from typer.testing import CliRunner

from corpus_teacher.cli.main import app


def test_it_says_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def warm_up(**options: object) -> Warmed:
        asked.append(options)
        return Warmed(7, 3, 1.25, "/somewhere")

    monkeypatch.setattr("corpus_teacher.analysis.kernels.warm_up", warm_up)
    done = CliRunner().invoke(app, ["warm-up"])
    assert done.exit_code == 0
    assert done.output == "compiled 7 kernels in 1.2 s, 3 were there; they are kept in /somewhere\n"
    done = CliRunner().invoke(app, ["warm-up", "--narrow", "--compact", "--workers", "2", "--json"])
    assert json.loads(done.output) == {"compiled": 7, "cached": 3, "seconds": 1.25, "folder": "/somewhere"}
    assert asked == [
        {"workers": None, "wide": True, "compact": False},
        {"workers": 2, "wide": False, "compact": True},
    ]
