"""What a file or a folder holds, told by its name, and by a look inside where the name is not enough."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Literal

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.unpacking import opened
from corpus_teacher.storage import Place, UrlPath

Kind = Literal["text", "jsonl", "parquet", "dataset", "hub", "tokens", "mds", "litdata", "webdataset"]

# fmt: off
TEXT_SUFFIXES = frozenset([
    ".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".org", ".adoc", ".html", ".htm", ".log", ".srt",
    ".py", ".pyi", ".pyx", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".cu", ".cuh", ".cs", ".java",
    ".kt", ".scala", ".go", ".rs", ".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".js", ".jsx", ".mjs",
    ".ts", ".tsx", ".sh", ".bash", ".sql", ".swift", ".hs", ".ml", ".mli", ".el", ".lisp", ".clj", ".ex",
    ".exs", ".erl", ".f", ".f90", ".m", ".s", ".asm", ".css", ".scss", ".toml", ".ini", ".cfg", ".yaml",
    ".yml", ".cmake", ".mk", ".proto",
])
# fmt: on
"""Suffixes of files that are one document each."""

JSON_LINES_SUFFIXES = frozenset([".jsonl", ".ndjson"])
TOKEN_SUFFIXES = frozenset([".npy", ".bin", ".idx", ".u16", ".u32", ".ds"])
PACKED_SUFFIXES = frozenset([".gz", ".zst", ".zstd"])
_MOST_LOOK_BYTES = 1 << 26  # of a first line that is looked into


def kind_of_file(path: Place) -> Kind | None:
    """What a file holds, by its name alone; None where the name says nothing.

    >>> kind_of_file(Path("a.jsonl.zst")), kind_of_file(Path("b.txt.gz")), kind_of_file(Path("c.exe"))
    ('jsonl', 'text', None)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in PACKED_SUFFIXES
    if packed:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in TEXT_SUFFIXES:
        return "text"
    if last in JSON_LINES_SUFFIXES or (packed and last == ".json"):  # C4 and others name their lines .json.gz
        return "jsonl"
    if last in (".mds", ".tar"):
        return "mds" if last == ".mds" else "webdataset"
    if not packed and last == ".parquet":
        return "parquet"
    if not packed and last in TOKEN_SUFFIXES:
        return "tokens"
    return None


def says_its_tokens(path: Place) -> bool:
    """Whether a file of tokens says itself that it is one: Megatron's with its index, datatrove's that isn't empty."""
    if path.suffix == ".bin":
        return path.with_suffix(".idx").is_file()
    return path.suffix == ".ds" and path.stat().st_size > 0


def beside_tokens(path: Place) -> bool:
    """Whether a file merely goes with one of tokens: an index, a loss mask, what datatrove says of its file."""
    if path.suffix == ".idx":
        return path.with_suffix(".bin").is_file()
    return path.suffixes[-2:-1] == [".ds"] and path.suffix in (".index", ".loss", ".metadata")


def holds_lines(file: Place) -> bool:
    """False for a packed .json in a folder that is one JSON value, not lines of objects."""
    if len(file.suffixes) < 2 or file.suffixes[-2].lower() != ".json":
        return True
    try:
        with opened(file, ReadLog()) as stream:
            return isinstance(json.loads(stream.readline(_MOST_LOOK_BYTES)), dict)
    except ValueError:  # among them: not JSON, not UTF-8, a damaged archive
        return False


def is_saved_dataset(path: Place) -> bool:
    """Whether `datasets` saved a data set (or several splits of one) in a folder of this machine."""
    if isinstance(path, UrlPath):
        return False
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def looks_like_path(name: str) -> bool:
    """Whether a name that isn't there was meant as a file or folder, and not as a name on the model hub.

    >>> looks_like_path("./gpt2"), looks_like_path("a/b/c"), looks_like_path("openai/gpt2")
    (True, True, False)
    """
    if name.startswith((".", "/", "~")) or name.endswith("/") or "\\" in name or name.count("/") > 1:
        return True
    return "/" in name and Path(name).parent.is_dir()


def special_file(path: Place) -> str | None:
    """What a path is that isn't a file or folder and could be waited for without end: a pipe, a device, a socket."""
    if isinstance(path, UrlPath):
        return None
    mode = path.stat().st_mode
    for test, kind in (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return kind
    return None
