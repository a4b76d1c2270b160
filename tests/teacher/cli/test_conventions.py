"""One convention over all commands: the same thing has the same name, and each is in the reference of the docs."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from corpus_teacher import noise
from corpus_teacher.cli import main as command_line
from corpus_teacher.cli.main import app
from corpus_teacher.cli.options import ESTIMATOR_NAMES, State
from corpus_teacher.errors import TeacherWarning

ROOT = Path(__file__).parents[3]

NO_JSON = {"serve"}
"""Commands that answer nothing of their own."""

CONTINUED = {"train", "study run", "study time", "synthesize", "recipe", "demo"}
"""Commands whose --out is a folder that is gone on with, or whose earlier contents are refused."""

ALIASES = [
    {"--overwrite", "--force"},
    {"--estimator", "-e"},
    {"--out", "-o"},
    {"--tokenizer", "-t"},
    {"--quiet", "-q"},
    {"--length", "-T"},
    {"--document", "-d"},
    {"--num", "-n"},
    {"--jobs", "-j"},
    {"--token-dtype", "--dtype"},
    {"--file", "--data"},
]
"""The only second names that options have."""


def walk(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if not below:
        yield name, command
        return
    for key, one in below.items():
        yield from walk(one, f"{name} {key}".strip())


COMMANDS = dict(walk(typer.main.get_command(app)))


def options(name: str) -> dict[str, Any]:
    """Every option of a command by each of its names."""
    made = [one for one in COMMANDS[name].params if one.param_type_name == "option"]
    return {text: one for one in made for text in (*one.opts, *one.secondary_opts)}


def annotation(name: str, parameter: str) -> str:
    """What a command's function takes."""
    function = inspect.unwrap(COMMANDS[name].callback)
    return str(inspect.signature(function).parameters[parameter].annotation).removeprefix("Annotated[").split(",")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_called_alike(name: str) -> None:
    has = options(name)
    assert {"--quiet", "-q", "--log-level"} <= has.keys()
    assert ("--json" in has) == (name not in NO_JSON)
    assert COMMANDS[name].help
    for one in set(has.values()):
        assert one.help, one.opts
        assert len(one.opts) == 1 or set(one.opts) in ALIASES, one.opts
    if "--estimator" in has:
        assert has["--estimator"] is has["-e"]
        assert "--max-order" in has
    if "--max-order" in has:
        assert annotation(name, "max_order") in ("str", "str | None", "list[str] | None")  # "none" is an order
    if "--out" in has and name not in CONTINUED:
        is_page = has["--out"].metavar == "FILE.html"
        assert is_page != ("--overwrite" in has), "a result of work is only replaced when that is asked for"
    assert ("--force" in has) == ("--overwrite" in has)
    if "--device" in has:
        assert has["--device"].default == "auto"


@pytest.mark.parametrize(
    "name",
    ["index contamination", "teacher eval", "teacher export-targets", "teacher cache", "teacher score", "trace"],
)
def test_what_is_read_beside_an_index_is_data(name: str) -> None:
    assert options(name)["--data"].multiple


@pytest.mark.parametrize("name", [name for name in COMMANDS if "-e" in options(name) and name != "teacher export-arpa"])
def test_help_names_the_estimators(name: str) -> None:
    for estimator in ESTIMATOR_NAMES:
        assert estimator in options(name)["-e"].help


def test_each_is_in_the_reference() -> None:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    hooks: Any = types.ModuleType("hooks")
    assert spec.loader is not None
    spec.loader.exec_module(hooks)
    page = hooks.commands()
    for name in COMMANDS:
        assert f"## corpus-teacher {name}\n" in page
        for text in options(name):
            assert f"`{text}`" in page
    assert hooks.COMMANDS in (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


def test_a_shell_completes_commands_and_options() -> None:
    script = "_CORPUS_TEACHER_COMPLETE=complete_bash COMP_WORDS='corpus-teacher index a' COMP_CWORD=2"
    code = f"env {script} {sys.executable} -m corpus_teacher.cli.main"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    assert "append" in done.stdout.split()


@pytest.fixture
def as_a_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`main` without a command: what it sets up for the process, taken back."""
    monkeypatch.setattr(command_line, "app", lambda **_: None)
    monkeypatch.setattr(command_line.signal, "signal", lambda *_: None)
    kept = {name: list(logging.getLogger(name).filters) for name in noise._NOISE}
    shown = warnings.showwarning
    command_line.main()
    yield
    warnings.showwarning = shown
    for name, filters in kept.items():
        logging.getLogger(name).filters[:] = filters


@pytest.mark.usefixtures("as_a_process")
def test_the_noise_of_an_import_is_left_out_and_warnings_are_not(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("torchao").warning("Failed to load %s: Could not load this library", "_C.so")
    logging.getLogger("torch.utils._pytree").warning("<enum 'K'> is an Enum subclass and is now natively supported by")
    assert caplog.records == []
    logging.getLogger("torchao").warning("this quantisation is wrong on your machine")
    logging.getLogger("torch.utils._pytree").warning("a node was registered twice")
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("as_a_process")
def test_a_warning_of_a_teacher_is_a_note_with_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(State, "options", {"leave_out": "--leave-out"})
    monkeypatch.setattr(State, "quiet", False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("say leave_out='self'", TeacherWarning, __file__, 1)
        assert capsys.readouterr().err == "note: say --leave-out self\n"
        monkeypatch.setattr(State, "quiet", True)
        warnings.showwarning("say leave_out='self'", TeacherWarning, __file__, 1)
        assert capsys.readouterr().err == ""


def test_help_of_every_command() -> None:
    for name in COMMANDS:
        assert CliRunner().invoke(app, [*name.split(), "-h"]).exit_code == 0
