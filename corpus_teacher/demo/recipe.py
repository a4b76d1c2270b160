"""What the example trainings read, made in one step out of the standard library of the running Python.

The files under examples/train name an index, held-out texts, a larger index, a model and texts that a model wrote.
`prepare_recipe` makes those that a recipe names and that aren't there; what is there stays as it is.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import corpus_teacher
from corpus_teacher.data import BuildOptions, Document, build_index_from_sources
from corpus_teacher.errors import ConfigError, StudyError
from corpus_teacher.files import write_text
from corpus_teacher.settings import nearest
from corpus_teacher.standard_library import split_standard_library

INDEX, LARGE_INDEX, HELD_OUT, TEACHER = "my-index", "large-index", "held-out", "teacher"

_NEEDS = {
    "corpus-only": (),
    "annealed": (),
    "own-average": (),
    "on-policy": (),
    "larger-index": (LARGE_INDEX,),
    "blend": (TEACHER,),
    "classic": (TEACHER,),
    "quantization": (TEACHER,),
    "own-samples": (TEACHER, "own-samples"),
    "sequence-level": (TEACHER, "synthetic"),
}

RECIPES = tuple(_NEEDS)
"""The recipes by name: the files under examples/train."""


@dataclass(frozen=True)
class RecipeSize:
    """How much is made.

    Attributes
    ----------
    vocab_size : int
        V of the tokenizer, trained on the text.
    index_bytes, large_bytes, held_out_bytes : int
        UTF-8 bytes of text, about.
    teacher_steps : int
        Optimizer steps of the model that stands in for a real one.
    """

    vocab_size: int = 4096
    index_bytes: int = 3_000_000
    large_bytes: int = 12_000_000
    held_out_bytes: int = 300_000
    teacher_steps: int = 300


def recipe_text(name: str) -> str:
    """The TOML file of a recipe.

    Raises
    ------
    ConfigError
        A name that there isn't.
    """
    if name not in _NEEDS:
        raise ConfigError(f"there is no recipe {name!r}: {nearest(name, RECIPES)}")
    packaged = importlib.resources.files(corpus_teacher) / "examples" / f"{name}.toml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    checkout = Path(corpus_teacher.__file__).parents[1] / "examples" / "train" / f"{name}.toml"
    return checkout.read_text(encoding="utf-8")


def prepare_recipe(
    name: str,
    folder: str | Path = ".",
    *,
    size: RecipeSize | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Path]:
    """Make what a recipe reads, where it is missing, and its TOML file.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    folder : path
        Where `corpus-teacher train NAME.toml` will be run.
    size : RecipeSize, optional
    report : callable, optional
        Told a sentence before each thing that is made.

    Returns
    -------
    list of Path
        What was made, in order.

    Raises
    ------
    ConfigError
        A name that there isn't.
    OutputError
        A folder that can't be written to.
    StudyError
        A text that couldn't be written.
    """
    text, folder, size = recipe_text(name), Path(folder), size or RecipeSize()
    say = report or (lambda sentence: None)
    made: list[Path] = []
    split = split_standard_library(max_bytes=size.large_bytes)

    def missing(thing: str) -> Path | None:
        path = folder / thing
        if path.exists():
            return None
        made.append(path)
        return path

    if path := missing(HELD_OUT):
        say(f"{HELD_OUT}/: files of Python's standard library that are in no index")
        path.mkdir(parents=True)
        for document in _first(split.held_out, size.held_out_bytes):
            write_text(path / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', document.origin)}.txt", document.text)
    for thing, limit in ((INDEX, size.index_bytes), (LARGE_INDEX, size.large_bytes)):
        if (thing == INDEX or thing in _NEEDS[name]) and (path := missing(thing)):
            say(f"{thing}/: an index of {limit / 1e6:.0f} MB of the standard library")
            own = folder / INDEX / "tokenizer.json"
            tokenizer = f"train:{size.vocab_size}" if thing == INDEX else str(own)
            _index(_first(split.train, limit), path, tokenizer)
    if TEACHER in _NEEDS[name] and (path := missing(TEACHER)):
        say(f"{TEACHER}/: a small model trained on {INDEX} for {size.teacher_steps} steps, in place of a real one")
        _train_teacher(folder, path, size.teacher_steps)
    for thing in ("own-samples", "synthetic"):
        if thing in _NEEDS[name] and missing(thing):
            say(f"{thing}/: texts that {TEACHER} writes")
            _synthesize(text, folder)
    if path := missing(f"{name}.toml"):
        write_text(path, text)
    return made


def _first(documents: list[Document], limit: int) -> list[Document]:
    """The first documents, until they have about that many bytes."""
    taken, size = [], 0
    for document in documents:
        if size >= limit:
            break
        taken.append(document)
        size += len(document.text.encode())
    return taken


def _index(documents: list[Document], out: Path, tokenizer: str) -> None:
    source = out.with_name(f"{out.name}.jsonl")
    write_text(source, "".join(json.dumps({"text": one.text, "id": one.origin}) + "\n" for one in documents))
    build_index_from_sources([str(source)], out, BuildOptions(tokenizer=tokenizer))


def _train_teacher(folder: Path, out: Path, steps: int) -> None:
    from corpus_teacher.training.command import run_training
    from corpus_teacher.training.settings import make_run

    run = folder / f".{out.name}-run"
    tables = {
        "out": str(run),
        "student": {"hidden_size": 192, "num_hidden_layers": 3},
        "data": {"index": str(folder / INDEX), "held_out": [str(folder / HELD_OUT)], "length": 128},
        "training": {"max_steps": steps, "learning_rate": 2e-3, "save_strategy": "no"},
    }
    run_training(make_run(tables))
    shutil.move(str(run / "student"), out)
    shutil.rmtree(run, ignore_errors=True)


def _synthesize(text: str, folder: Path) -> None:
    """Run the command that the recipe's own comment gives, in a process of its own."""
    for command in written_commands(text):
        line = [sys.executable, "-m", "corpus_teacher", *command]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise StudyError(f"corpus-teacher {shlex.join(command)} failed: {said[-1]}")


def written_commands(text: str) -> list[list[str]]:
    """The commands that the comment of a recipe says are to be run before it, as words behind `corpus-teacher`."""
    comment = "".join(line[1:] for line in text.splitlines(keepends=True) if line.startswith("#"))
    found = re.findall(r"^\s+corpus-teacher (synthesize (?:.*\\\n)*.*)$", comment, flags=re.MULTILINE)
    return [shlex.split(one.replace("\\\n", " ")) for one in found]
