"""What is fuzzed: a reader, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Input(NamedTuple):
    """What a reader reads, and how.

    samples : content, of a manifest without its seal, of an archive what is packed in it; the first is valid.
    read : reads one content, to the end; what it returns is thrown away.
    close : lets go of what was opened, in the process that made the input.
    finish : seals or packs a content; the identity where there is nothing to do.
    structure : "json", "lines" or "toml" where values can be exchanged.
    """

    samples: Sequence[bytes]
    read: Callable[[bytes], object]
    finish: Callable[[bytes], bytes] = bytes
    structure: str | None = None
    close: Callable[[], object] = tuple


class Reader(NamedTuple):
    """A reader under test: its name, and what makes its input ready in an empty folder."""

    name: str
    prepare: Callable[[Path], Input]
