"""Checkpoints that are whole: which they are, and the newest of them.

A checkpoint is a folder of files that transformers writes one after the other. When all of them are there and on the
disk, a manifest of their SHA-256 is written beside them: a folder without one was cut short, and is passed over; a
folder whose files aren't those of its manifest has been damaged, and is never gone on from.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus_teacher.errors import ConfigError
from corpus_teacher.files import read_json, write_json

MANIFEST = "whole.json"
"""In a checkpoint: its files with sizes and checksums, written last."""

_NAME = re.compile(r"checkpoint-(\d+)")
_REMOVED = re.compile(r"\.checkpoint-\d+\.removed")
_BLOCK = 1 << 20


def seal(folder: Path) -> None:
    """Say of a checkpoint that it is whole: its files are put on the disk, and their checksums beside them."""
    entries = {}
    for path in _files(folder):
        with path.open("rb") as file:
            entries[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _checksum(file)}
            os.fsync(file.fileno())
    write_json(folder / MANIFEST, {"files": entries})


def unseal(folder: Path) -> None:
    """Take the word back, before files of the folder are written or removed."""
    (folder / MANIFEST).unlink(missing_ok=True)


def is_sealed(folder: Path) -> bool:
    """Whether it has a manifest: it was whole once."""
    return (folder / MANIFEST).is_file()


def fault_of(folder: Path) -> str | None:
    """What keeps a checkpoint from being gone on from, or None; every file is read.

    Examples
    --------
    >>> fault_of(Path("no-such-folder"))
    'it was cut short before it was whole'
    """
    try:
        entries = read_json(folder / MANIFEST)["files"]
    except OSError:
        return "it was cut short before it was whole"
    except (ValueError, KeyError, TypeError):
        return f"its {MANIFEST} is damaged"
    if not isinstance(entries, dict) or not entries or not all(_is_entry(*entry) for entry in entries.items()):
        return f"its {MANIFEST} is damaged"
    for name, entry in entries.items():
        path = folder / name
        if not path.is_file():
            return f"its {name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"its {name} has {path.stat().st_size:,} bytes, not {entry['bytes']:,}"
        with path.open("rb") as file:
            if _checksum(file) != entry["sha256"]:
                return f"its {name} isn't what was written: the checksums differ"
    return None


def _is_entry(name: str, entry: Any) -> bool:
    """Whether this describes a file inside of the folder."""
    inside = "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts
    return (
        inside and isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
    )


def checkpoints_in(out: Path) -> list[Path]:
    """The folders of checkpoints, whole or not, in the order of their steps."""
    found = [(int(match[1]), path) for path in out.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if path.is_dir()]


def newest_whole(out: Path, notices: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole; None where there is none, and none was ever.

    Parameters
    ----------
    out : Path
        The folder of a training.
    notices : callable
        Takes a sentence for each newer one that is passed over.

    Raises
    ------
    ConfigError
        No whole one, and one that was whole and is damaged: to begin anew would throw away what can be mended.
    """
    _clear_removed(out)
    faults: list[tuple[Path, str]] = []
    for folder in reversed(checkpoints_in(out)):
        fault = fault_of(folder)
        if fault is None:
            for newer, why in faults:
                notices(f"{newer} is passed over, {why}: the training goes on from {folder.name}")
            return folder
        faults.append((folder, fault))
    damaged = [(folder, why) for folder, why in faults if is_sealed(folder)]
    if damaged:
        folder, why = damaged[0]
        raise ConfigError(f"{folder} can't be gone on from, {why}: mend it, or remove it to begin anew")
    for folder, why in faults:
        notices(f"{folder} is passed over, {why}, and there is no other: the training begins anew")
    return None


def remove_oldest(out: Path, keep: int | None, best: str | None) -> None:
    """Remove whole checkpoints until there are `keep`; the newest and the best one stay.

    A folder first gets another name, so that what a kill leaves of it isn't taken for a checkpoint, and goes later.
    """
    if keep is None or keep < 1:
        return
    _clear_removed(out)
    whole = [folder for folder in checkpoints_in(out) if is_sealed(folder)]
    spared = {whole[-1].name, Path(best).name if best else ""} if whole else set()
    others = [folder for folder in whole if folder.name not in spared]
    for folder in others[: max(0, len(whole) - keep)]:
        folder.rename(folder.with_name(f".{folder.name}.removed"))
    _clear_removed(out)


def _clear_removed(out: Path) -> None:
    """Remove what bears the name of a removed checkpoint."""
    for path in out.glob(".checkpoint-*.removed"):
        if _REMOVED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """Its files but the manifest, and what a killed run has written of one."""
    names = (MANIFEST, f".{MANIFEST}.")
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(names))


def _checksum(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
