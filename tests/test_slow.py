"""The list of slow tests, which `make check` leaves out, names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent


def test_what_is_listed_as_slow_is_there() -> None:
    listed = (ROOT / "slow.txt").read_text(encoding="utf-8").split()
    assert listed == sorted(set(listed))
    for line in listed:
        file, _, name = line.partition("::")
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8")), (
            line
        )  # some are taken from elsewhere
