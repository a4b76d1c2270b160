"""`python -m bench.trust`: faults on purpose, and what became of them; an hour, or with --quick some minutes.

Sections: flips of bits in indexes that are opened unchecked; kills of every command that writes; readers and writers at
once; inputs of odd sizes; a server among bad clients. Each runs in a process of its own, some side by side.
Prints tables for people, and last one line of JSON for programs; --out merges what was found into a file. Ends with 1
where something crashed, hung, was lost or was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import describe


class Amounts(NamedTuple):
    """How much of each: flips, kills of each command and seconds for them at most, seconds of load and of soak, hostile
    cases to each reader and seconds of a processor for them at most, and the scale of odd sizes.
    """

    flips: int
    kills: int
    kill_s: float
    load_s: float
    soak_s: float
    cases: int
    case_s: float
    scale: float


LONG = Amounts(flips=100_000, kills=200, kill_s=600, load_s=600, soak_s=3600, cases=60_000, case_s=30, scale=1.0)
QUICK = Amounts(flips=1_000, kills=6, kill_s=60, load_s=30, soak_s=60, cases=200, case_s=10, scale=0.001)

_ALONE = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
"""Forks want a process in which no library has started threads."""

Section = dict[str, Any]


def flips(amounts: Amounts, given: argparse.Namespace) -> Section:
    """Bits flipped in indexes that are opened unchecked."""
    from bench.trust.flips import OUTCOMES, campaign

    def told(found: Section) -> None:
        print(f"flips: {found['tried']:,}", flush=True)
        if given.out is not None:
            merge(given.out, {"flips": found})

    found = campaign(amounts.flips, given.seed, deep=given.deep, before=_before(given).get("flips"), told=told)
    print(f"{'file':26s}" + "".join(f"{kind:>11s}" for kind in OUTCOMES))
    for file, counts in {**found["by_file"], "all": found}.items():
        print(f"{file:26s}" + "".join(f"{counts[kind]:11,d}" for kind in OUTCOMES))
    return found


def kills(amounts: Amounts, given: argparse.Namespace) -> Section:
    """Commands killed, whatever they write."""
    from bench.trust.kills import COUNTED, all_cases, campaign

    cases = [case for case in all_cases() if not given.command or case.name in given.command]
    print(f"{'command':28s}" + "".join(f"{name:>11s}" for name in COUNTED), flush=True)
    return campaign(
        cases,
        amounts.kills,
        given.seed,
        seconds=amounts.kill_s,
        say=lambda line: print(line, flush=True),
        before=_before(given).get("kills"),
        told=lambda found: None if given.out is None else merge(given.out, {"kills": found}),
    )


def load(amounts: Amounts, given: argparse.Namespace) -> Section:
    """Readers and writers at once."""
    from bench.trust.load import campaign

    found = campaign(amounts.load_s)
    print("readers and writers: " + _told(found), flush=True)
    return found


def soak(amounts: Amounts, given: argparse.Namespace) -> Section:
    """A server among bad clients."""
    from bench.trust.soak import campaign

    found = campaign(amounts.soak_s, given.seed)
    print("server: " + _told(found), flush=True)
    return found


def fuzz(amounts: Amounts, given: argparse.Namespace) -> Section:
    """Hostile input to every reader."""
    from bench.trust.fuzzing import campaign
    from bench.trust.readers import READERS

    return campaign(list(READERS.values()), cases=amounts.cases, seconds=amounts.case_s, seed=given.seed)


def sizes(amounts: Amounts, given: argparse.Namespace) -> Section:
    """Inputs of odd sizes."""
    from bench.trust.sizes import campaign

    return campaign(amounts.scale, given.size, say=lambda line: print(line, flush=True))


def _before(given: argparse.Namespace) -> Mapping[str, Any]:
    """What the file of --out counts already, where it is to be gone on with."""
    from corpus_teacher.files import read_json

    return read_json(given.out) if given.go_on and given.out is not None and given.out.exists() else {}


def _told(found: Section) -> str:
    """Counts in one line."""
    return ", ".join(f"{name} {value}" for name, value in found.items() if not isinstance(value, dict))


SECTIONS: dict[str, Callable[[Amounts, argparse.Namespace], Section]] = {
    "soak": soak, "kills": kills, "fuzz": fuzz, "flips": flips, "load": load, "sizes": sizes
}  # fmt: skip
"""They run side by side, as many as there are processors, and one more; the longest begin."""

_BAD = {
    "flips": ("crash", "hang", "exception"),
    "fuzz": ("finds",),
    "load": ("wrong", "refused", "exceptions", "died", "descriptors_left", "maps_left"),
    "soak": ("wrong", "errors", "died", "exit_code", "tracebacks", "memory_grew", "descriptors_grew"),
}
"""What must be 0."""


def failures(name: str, found: Mapping[str, Any]) -> int:
    """How much of a section wasn't to be."""
    if name == "kills":
        return sum(
            counts["lost"] + counts["wrong"] + counts["resumed"] - counts["bit_equal"] for counts in found.values()
        )
    if name == "sizes":
        return sum(not row["right"] for row in found.values())
    return sum(found[kind] for kind in _BAD[name])


def merge(path: Path, found: Mapping[str, Any]) -> None:
    """Put sections into the file of results; the others stay, and so do commands and sizes not tried this time."""
    from corpus_teacher.files import read_json, write_text

    kept = read_json(path) if path.exists() else {}
    for name, section in found.items():
        kept[name] = {**kept.get(name, {}), **section} if name in ("kills", "sizes") else section
    write_text(path, json.dumps(kept) + "\n")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.trust", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="some minutes in place of an hour")
    parser.add_argument("--only", metavar="SECTION,…", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--flips", type=int, help="how many bits to flip")
    parser.add_argument("--kills", type=int, help="how many kills of each command")
    parser.add_argument("--kill-s", type=float, help="seconds for the kills of each command, at most")
    parser.add_argument("--case-s", type=float, help="seconds of a processor for the cases to each reader, at most")
    parser.add_argument("--command", action="append", help="a command to kill, by its name; repeat it; default: all")
    parser.add_argument("--load", type=float, help="seconds of readers and writers at once")
    parser.add_argument("--soak", type=float, help="seconds of the server among bad clients")
    parser.add_argument("--size", action="append", help="a case of sizes, by its name; repeat it; default: all")
    parser.add_argument("--scale", type=float, help="of sizes: 1 is all, 0.2 a fifth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deep", action="store_true", help="flips: fits, recall and ARPA besides: ten times as long")
    parser.add_argument("--go-on", action="store_true", help="flips, kills: from what the file of --out counts already")
    parser.add_argument("--out", type=Path, help="a file of results, such as bench/results/trust.json")
    given = parser.parse_args()
    for name in (given.only or "").split(",") if given.only else ():
        if name not in SECTIONS:
            parser.error(f"--only {name}: choose from {', '.join(SECTIONS)}")
    return given


def _timed(name: str, work: Callable[[], Section]) -> Section:
    """What a section finds; how long it took is printed."""
    begin = time.monotonic()
    found = work()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(one.ru_utime + one.ru_stime for one in used)
    print(f"{name}: {time.monotonic() - begin:,.0f} s, {cpu_s:,.0f} s of a processor", flush=True)
    return found


def _in_a_process(name: str, out: Path) -> None:
    """One section, with the options of this call; what it says is said here, behind its name."""
    command = [sys.executable, "-m", "bench.trust", *sys.argv[1:], "--only", name, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):  # what is for programs is in the file
                print(f"{name:6s}| {line}", end="", flush=True)


def main() -> int:
    """Run the sections; 1 where something wasn't to be."""
    given = _parsed()
    os.environ.update(_ALONE)
    amounts = QUICK if given.quick else LONG
    said = {
        "flips": given.flips,
        "kills": given.kills,
        "kill_s": given.kill_s,
        "load_s": given.load,
        "soak_s": given.soak,
        "case_s": given.case_s,
        "scale": given.scale,
    }
    said = {name: value for name, value in said.items() if value is not None}
    amounts = amounts._replace(**said)
    names = given.only.split(",") if given.only else list(SECTIONS)
    found: dict[str, Any] = {"machine": describe()}
    if given.go_on and given.out is None:
        raise SystemExit("--go-on needs --out: the file that is gone on with")
    if len(names) == 1:
        found[names[0]] = _timed(names[0], lambda: SECTIONS[names[0]](amounts, given))
    else:
        from corpus_teacher.data import available_cores

        with tempfile.TemporaryDirectory() as folder:
            parts = {name: Path(folder) / f"{name}.json" for name in names}
            with ThreadPoolExecutor(1 + available_cores()) as lanes:  # the server among its clients mostly waits
                list(lanes.map(lambda name: _in_a_process(name, parts[name]), names))
            found |= {name: json.loads(part.read_text())[name] for name, part in parts.items()}
    if given.out is not None:
        merge(given.out, found)
    bad = {name: failures(name, found[name]) for name in names}
    print(json.dumps(found))
    return int(any(bad.values()))


if __name__ == "__main__":
    sys.exit(main())
