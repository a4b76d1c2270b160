"""The folder of a synthetic corpus: parts while it grows, then files that training and `index build` read.

| file | what |
|---|---|
| synthesis.json | settings, teacher, versions, counts and the report of the filters; "complete": false while it grows |
| parts/part-NNNNN.npz | a batch of samples: evidence of all, tokens of the kept; they go when the corpus is complete |
| tokens.npy, doc_starts.npy | (N,) uint16 or uint32, each document with its end; (D + 1,) int64 |
| evidence.npy | (D,) records of `corpus_teacher.synthesis.filters.MEASURES` |
| documents.jsonl | in place of these three: a line a document, its text and its evidence |
| tokenizer.json | the teacher's |

A part is written under another name and takes its own when it is whole, so a run that is killed loses a batch at most.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.records import one_line
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, InputError, OutputError
from corpus_teacher.files import LOCK_FILE, read_json, whole_file, write_array, write_bytes, write_json

RECORD = "synthesis.json"
PARTS = "parts"
FORMAT = "corpus-teacher-synthesis"
VERSION = 1
FORMS = ("tokens", "jsonl")

_ARRAYS = ("tokens.npy", "doc_starts.npy", "evidence.npy")
_LINES = "documents.jsonl"
_TOKENIZER = "tokenizer.json"
_BEGINNING = (LOCK_FILE, f".{RECORD}.partial", f"{RECORD}.partial")  # what a run that is killed at once has written
_CHUNK_BYTES = 1 << 24


class Part(NamedTuple):
    """A batch of samples.

    Attributes
    ----------
    measures : ndarray of shape (n,), MEASURES
        Of all.
    tokens : ndarray of shape (m,), uint16 or uint32
        Of the kept documents, one after the other, each with its end.
    sizes : ndarray of shape (k,), int64
        Tokens of each of them.
    """

    measures: npt.NDArray[Any]
    tokens: npt.NDArray[Any]
    sizes: npt.NDArray[np.int64]

    def documents(self) -> list[npt.NDArray[Any]]:
        """The kept documents."""
        return np.split(self.tokens, self.sizes.cumsum()[:-1]) if self.sizes.size else []


def begin_folder(out: Path, settings: Mapping[str, Any], versions: Mapping[str, str], *, overwrite: bool) -> bool:
    """Make the folder, or take over one that was begun with the same settings; whether it is complete already.

    Raises
    ------
    ConfigError
        Begun with other settings.
    OutputError
        It holds something else, or can't be made.
    InputError
        Its record is damaged.
    """
    if (out / RECORD).is_file():
        begun = read_record(out)
        if not overwrite:
            wanted = json.loads(json.dumps(settings))
            for name, value in wanted.items():
                if begun["settings"].get(name) != value:
                    raise ConfigError(
                        f"{out} was begun with {name} {begun['settings'].get(name)} and this run has {value}: write to "
                        "another folder, or begin anew with overwrite"
                    )
            if begun["complete"]:
                shutil.rmtree(out / PARTS, ignore_errors=True)
            return bool(begun["complete"])
        write_record(out, {"complete": False, "settings": {}, "versions": {}})  # from here on nobody goes on with it
        _clear(out)
    elif out.is_dir() and any(path.name not in _BEGINNING for path in out.iterdir()):
        raise OutputError(f"{out} is not empty and holds no synthetic corpus: name a new folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} can't be made ({error.strerror or error}): name another folder") from error
    write_record(out, {"complete": False, "settings": dict(settings), "versions": dict(versions)})
    return False


def read_record(out: Path) -> dict[str, Any]:
    """What synthesis.json says.

    Raises
    ------
    InputError
        There is none, or it is damaged or of another version.
    """
    try:
        record = read_json(out / RECORD)
    except FileNotFoundError as error:
        raise InputError(f"{out} holds no synthetic corpus: make one with `corpus-teacher synthesize`") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{out / RECORD} can't be read ({error}): make the corpus anew") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise InputError(f"{out / RECORD} is no record of a synthetic corpus of version {VERSION}: name another folder")
    return record


def write_record(out: Path, fields: Mapping[str, Any]) -> None:
    """Replace synthesis.json."""
    record = {"format": FORMAT, "version": VERSION, **fields}
    write_json(out / RECORD, record, ensure_ascii=False)


def write_part(out: Path, number: int, part: Part) -> None:
    """Write part `number` whole or not at all.

    Raises
    ------
    OutputError
    """
    path = _part_path(out, number)
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, measures=part.measures, tokens=part.tokens, sizes=part.sizes)
    write_bytes(path, buffer.getvalue())


def read_parts(out: Path) -> Iterator[Part]:
    """The parts that are there, from the first to the last whole one.

    Raises
    ------
    InputError
        A damaged part.
    """
    number = 0
    while (path := _part_path(out, number)).is_file():
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                part = Part(arrays["measures"], arrays["tokens"], arrays["sizes"])
            _check(part)
        except Exception as error:  # zip, zlib and numpy all have errors of their own
            raise InputError(
                f"{path} is damaged ({one_line(error)}): remove it and all later parts, and start again"
            ) from error
        yield part
        number += 1


def _check(part: Part) -> None:
    """Refuse arrays that aren't a part's: a changed byte can make other arrays of the same file."""
    for name, array in part._asdict().items():
        if array.ndim != 1:
            raise ValueError(f"{name} has {array.ndim} axes, not one")
    for name, array in (("tokens", part.tokens), ("sizes", part.sizes)):
        if array.dtype.kind not in "ui":
            raise ValueError(f"{name} are {array.dtype}, not whole numbers")
    sizes = part.sizes
    if sizes.size and (int(sizes.min()) < 0 or int(sizes.max()) > part.tokens.size):
        raise ValueError(f"sizes are not of documents of {part.tokens.size:,} tokens")
    if int(sizes.sum()) != part.tokens.size:
        raise ValueError(f"sizes of {int(sizes.sum()):,} tokens, and {part.tokens.size:,} tokens")


def write_corpus(
    out: Path, form: str, tokenizer: Tokenizer | None, end_of_document: int | None
) -> list[dict[str, Any]]:
    """Put the kept documents of all parts into the files of a form; name, size and SHA-256 of each.

    Raises
    ------
    OutputError
    """
    if tokenizer is not None:
        write_bytes(out / _TOKENIZER, tokenizer.to_bytes())
    if form == "jsonl":
        if tokenizer is None:
            raise ConfigError("text needs a tokenizer: name the teacher's, or write tokens")
        names = [_LINES]
        _write_lines(out, tokenizer, end_of_document)
    else:
        names = list(_ARRAYS)
        _write_tokens(out)
    if tokenizer is not None:
        names.append(_TOKENIZER)
    return [{"file": name, "bytes": (out / name).stat().st_size, "sha256": _sha256_of(out / name)} for name in names]


def _clear(out: Path) -> None:
    """Remove what a run has made, but for its record, which is replaced, and for what isn't ours."""
    shutil.rmtree(out / PARTS, ignore_errors=True)
    for name in (*_ARRAYS, _LINES, _TOKENIZER):
        (out / name).unlink(missing_ok=True)
        for left in (f".{name}.partial", f"{name}.partial"):  # of killed runs, of this version and earlier ones
            (out / left).unlink(missing_ok=True)


def _write_tokens(out: Path) -> None:
    sizes, evidence = [np.zeros(1, np.int64)], []
    dtype = np.dtype(np.uint16)
    for part in read_parts(out):
        sizes.append(part.sizes)
        evidence.append(part.measures[part.measures["verdict"] == 0])
        dtype = part.tokens.dtype
    starts = np.cumsum(np.concatenate(sizes))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (int(starts[-1]),)}
    with whole_file(out / "tokens.npy") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in read_parts(out):
            file.write(part.tokens.data)
    write_array(out / "doc_starts.npy", starts)
    write_array(out / "evidence.npy", np.concatenate(evidence))


def _write_lines(out: Path, tokenizer: Tokenizer, end_of_document: int | None) -> None:
    with whole_file(out / _LINES) as file:
        for part in read_parts(out):
            kept = part.measures[part.measures["verdict"] == 0]
            for document, row in zip(part.documents(), kept, strict=True):
                ids = document[:-1] if end_of_document is not None else document
                line = {"text": tokenizer.decode(ids), **_plain(row)}
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())


def _plain(row: Any) -> dict[str, Any]:
    """A record of evidence as JSON has it; what wasn't measured is left out."""
    names = [name for name in row.dtype.names if name != "verdict"]
    if row["longest_match"] < 0:
        names = names[:-2]
    return {name: row[name].item() for name in names}


def _part_path(out: Path, number: int) -> Path:
    return out / PARTS / f"part-{number:05d}.npz"


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} can't be written ({error.strerror or error}): free some space, and start again")


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
