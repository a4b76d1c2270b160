"""The commands that are killed: what stands before, what is called, and what readers find afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime as real_datetime
from pathlib import Path
from typing import Any

import numpy as np

NOTHING = "nothing"
UNFINISHED = "unfinished"
"""States of a place: nothing of ours is there; a work that says itself that it isn't done."""

_WORDS = ["to be", " or not", " that is", " the", " question", " whether", " it", " is nobler", " in", " mind"]
Place = Callable[[Path], object]


def hash_of_files(paths: Sequence[Path], edited: Callable[[Path], bytes] = Path.read_bytes) -> str:
    """A hash of names and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = edited(path)
        digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def tree(place: Path) -> str:
    """A hash of all files in a folder, by name."""
    return hash_of_files([path for path in place.rglob("*") if path.is_file()])


@dataclass(frozen=True)
class Case:
    """A command that is killed; each function takes the folder it happens in, which is the current one.

    Parameters
    ----------
    name : str
        The command, as the table has it.
    prepare : callable
        Makes what stands before.
    operate : callable
        Runs the command.
    state : callable
        Tells what a reader finds: a hash, NOTHING or UNFINISHED; raises where it can't be read.
    resume : callable, optional
        What a person does after a kill; default: the command again.
    warm : callable, optional
        Imports and compiles, once before all forks; starts no thread that stays.
    again : bool
        Resume too where the command had done its work before the kill; False: it would do it twice.
    files : callable, optional
        A hash of what the command leaves when it is done, the same in every run; default: of all files.
    campaign : callable, optional
        (case, folder, seed) → what kills and counts; default: `kills.Campaign`.
    """

    name: str
    prepare: Place
    operate: Place
    state: Callable[[Path], str]
    resume: Place | None = None
    warm: Callable[[], object] = field(default=lambda: None)
    again: bool = True
    files: Callable[[Path], str] = field(default=tree)
    campaign: Callable[..., Any] | None = None


class _Frozen:
    """A clock that stands, so that two runs of a command write the same bytes."""

    @staticmethod
    def now(zone: Any = None) -> real_datetime:
        return real_datetime(2000, 1, 1, tzinfo=zone)


def freeze_clocks() -> None:
    """Stop the clocks that write times into files, in this process and its children."""
    from corpus_index.sharded import shard_writer

    from corpus_teacher.data import indexing

    shard_writer.datetime = indexing.datetime = _Frozen  # type: ignore[attr-defined, misc, assignment]


def call(*arguments: str) -> None:
    """A command of the command line; ends in SystemExit."""
    from corpus_teacher.cli.main import app

    app(args=[*arguments, "--quiet"], prog_name="corpus-teacher")


def done(*arguments: str) -> None:
    """A command that has to succeed."""
    try:
        call(*arguments)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{' '.join(arguments)}: exit {ended.code}") from None


# indexes


def write_texts(folder: Path, names: Sequence[str] = ("old", "new"), documents: int = 40) -> None:
    """A file of JSON lines for each name: short documents of few words, other ones in each."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        lines = [
            json.dumps(
                {"text": "".join(_WORDS[word] for word in rng.integers(0, len(_WORDS), 40)), "id": f"{name}-{n}"}
            )
            for n in range(documents)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def build(folder: Path, name: str, *more: str) -> None:
    """Build the index of a text, in shards."""
    call(
        "index", "build", f"{name}.jsonl", "--out", "index", "--tokenizer", "train:300", "--name-field", "id",
        "--shard-tokens", "1500", "--workers", "2", *more,
    )  # fmt: skip


def _built(folder: Path, name: str) -> None:
    try:
        build(folder, name)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"build: exit {ended.code}") from None


def index_state(folder: Path, name: str = "index") -> str:
    """What readers of an index find: text, documents' names and answers, every file compared with its checksum."""
    from corpus_index import open_index

    path = folder / name
    if not os.path.lexists(path):
        return NOTHING
    with open_index(path, check="always") as index:
        tokens = np.asarray(index.tokens)
        rows = np.stack([tokens[k : k + 33] for k in range(0, len(tokens) - 33, len(tokens) // 6)]).astype(np.int64)
        targets = index.smoothed_targets(rows[:, :-1], rows[:, 1:], leave_out="self")
        told = [tokens.tobytes(), np.asarray(index.doc_starts).tobytes()]
        told += [index.attachment(name) for name in sorted(index.attachment_names)]
        told += [array.tobytes() for array in (targets.token_ids, targets.probs, targets.match_len)]
    return hashlib.sha256(b"".join(told)).hexdigest()


def _both(folder: Path) -> None:
    write_texts(folder)


def _old(folder: Path) -> None:
    write_texts(folder)
    _built(folder, "old")


def _grown(folder: Path) -> None:
    _old(folder)
    done("index", "append", "index", "new.jsonl", "--name-field", "id", "--shard-tokens", "700")


def _warm_index() -> None:
    freeze_clocks()
    with tempfile.TemporaryDirectory() as place, open(os.devnull, "w") as silence:
        folder, here = Path(place), os.getcwd()
        os.chdir(folder)
        with contextlib.redirect_stdout(silence):
            _grown(folder)
            done("index", "remove", "index", "-d", "old-3")
            done("index", "merge", "index")
            index_state(folder)
        os.chdir(here)


def _shards(folder: Path) -> list[Any]:
    return list(json.loads((folder / "index" / "manifest.json").read_text()).get("shards", [1]))


INDEXES = (
    Case("index build", _both, lambda folder: build(folder, "new"), index_state, warm=_warm_index, again=False),
    Case(
        "index build --overwrite",
        _old,
        lambda folder: build(folder, "new", "--overwrite"),
        index_state,
        warm=_warm_index,
    ),
    Case(
        "index append",
        _old,
        lambda folder: call("index", "append", "index", "new.jsonl", "--name-field", "id", "--workers", "2"),
        index_state,
        warm=_warm_index,
        again=False,
    ),
    Case(
        "index remove",
        _grown,
        lambda folder: call("index", "remove", "index", "-d", "old-3", "-d", "new-7", "--workers", "2"),
        index_state,
        warm=_warm_index,
        again=False,
    ),
    Case(
        "index merge",
        _grown,
        lambda folder: call("index", "merge", "index", "--workers", "2"),
        lambda folder: f"{index_state(folder)} in {len(_shards(folder))}",
        warm=_warm_index,
        again=False,
    ),
)
