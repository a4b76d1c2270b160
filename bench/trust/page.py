"""Tables of what was found: the README's, and those of docs/explanation: reliability.md and hostile-input.md.

They are made from bench/results/trust.json and fuzz.json; `python -m bench.trust.page` puts them there. Tests compare
the pages with them: no figure of a table is typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "trust.json"
FUZZ_RESULTS = RESULTS.with_name("fuzz.json")
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
FUZZ_PAGE = PAGE.with_name("hostile-input.md")
README = Path(__file__).parents[2] / "README.md"

_HEAD = "| promise | how it is tested | tried | failed | command |\n|---|---|---|---|---|"
_KILLS_HEAD = (
    "| command | killed | lost | wrong | resumed | of these bit-equal | something left |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


def promises(found: Mapping[str, Any]) -> str:
    """A row for each promise."""
    flips, kills, load, soak = found["flips"], found["kills"].values(), found["load"], found["soak"]
    killed, resumed = (sum(one[name] for one in kills) for name in ("killed", "resumed"))
    lost, wrong, equal = (sum(one[name] for one in kills) for name in ("lost", "wrong", "bit_equal"))
    rows = [
        (
            "Whatever the arrays of an index hold, questions end, and in an answer or an exception of ours",
            'bits and bytes of each array changed; opened with `check="never"`; asked by all kinds of '
            "questions, with estimators that were fitted before, seven of them in turn",
            f"{flips['tried']:,} changes",
            f"{flips['crash']} crashes, {flips['hang']} hangs, {flips['exception']} other exceptions",
            "flips",
        ),
        (
            "After a kill there is the old or the new, whole; the command, called again, ends as if unkilled",
            "SIGKILL before calls that change files and at random times; opened, asked, and called again",
            f"{killed:,} kills, {resumed:,} reruns",
            f"{lost} lost, {wrong} wrong, {resumed - equal} reruns with other bytes",
            "kills",
        ),
        (
            "Who has an index open reads that version, while others replace, append to, cut and merge it",
            f"{load['readers']} processes (forked, spawned) of {load['threads']} threads beside a writer, for "
            f"{load['seconds'] / 60:.0f} minutes; each answer compared with that of one thread",
            f"{load['answers']:,} answers, {load['opened']:,} openings, {load['changes']:,} changes",
            f"{load['wrong']} wrong, {load['refused'] + load['exceptions']} refused, "
            f"{load['descriptors_left'] + load['maps_left']} descriptors and maps left",
            "load",
        ),
        (
            "A server answers right, and grows in nothing, whatever its clients do",
            f"{soak['clients']} clients that ask, send rubbish, lie about lengths and hang up, for "
            f"{soak['seconds'] / 60:.0f} minutes",
            f"{soak['asked']:,} good requests, {soak['rubbish'] + soak['lies']:,} bad ones, "
            f"{soak['hung up']:,} left in the middle",
            f"{soak['wrong']} wrong, {soak['errors']} errors, {soak['tracebacks']} tracebacks; memory "
            f"{soak['memory_mib'][1]:.0f} → {soak['memory_mib'][3]:.0f} MiB, descriptors "
            f"{soak['descriptors'][1]:.0f} → {soak['descriptors'][3]:.0f}",
            "soak",
        ),
    ]
    return "\n".join([_HEAD, *(f"| {' | '.join(row[:4])} | `python -m bench.trust --only {row[4]}` |" for row in rows)])


def kills(found: Mapping[str, Any]) -> str:
    """A row for each command."""
    names = ("killed", "lost", "wrong", "resumed", "bit_equal", "left")
    rows = [
        f"| `{command}` | {' | '.join(f'{counts[name]:,}' for name in names)} |"
        for command, counts in found["kills"].items()
    ]
    return "\n".join([_KILLS_HEAD, *rows])


def sizes(found: Mapping[str, Any]) -> str:
    """A row for each input of an odd size."""
    head = "| input | ended | CPU s | bound | MiB | bound |\n|---|---|---:|---:|---:|---:|"
    rows = []
    for row in found["sizes"].values():
        ended = (
            "as it should, with " + str(row["expected"]) if row["right"] else f"**not as it should**: {row['ended']}"
        )
        bounds = row["bounds"]
        rows.append(
            f"| {row['count']:,} {row['what']} | {ended} | {row['cpu_s']:.1f} | {bounds['cpu_s']:,.0f} "
            f"| {row['peak_bytes'] / 2**20:,.0f} | {bounds['memory_bytes'] / 2**20:,.0f} |"
        )
    return "\n".join([head, *rows])


def readers(found: Mapping[str, Any]) -> str:
    """A row for each reader, and one for all."""
    rows = [
        f"| {name} | {one['cases']:,} | {one.get('drawn', 0):,} | {one.get('guided', 0):,} | {one['refused']:,} "
        f"| {len(one['finds'])} |"
        for name, one in found["by_reader"].items()
    ]
    rows.append(
        f"| all | {found['cases']:,} | {found['drawn']:,} | {found['guided']:,} | {found['refused']:,} "
        f"| {found['finds']} |"
    )
    return "\n".join(["| reader | cases | drawn | guided | refused | finds |\n|---|---:|---:|---:|---:|---:|", *rows])


def readme(found: Mapping[str, Any], fuzzed: Mapping[str, Any]) -> str:
    """A row for each sort of fault."""
    flips, kills, load, soak = found["flips"], found["kills"].values(), found["load"], found["soak"]
    killed, lost, wrong = (sum(one[name] for one in kills) for name in ("killed", "lost", "wrong"))
    sizes = found["sizes"].values()
    rows = [
        (
            "bits and bytes changed in an index, opened unchecked and asked",
            f"{flips['tried']:,} changes",
            f"{flips['crash']} crashes, {flips['hang']} hangs; wrong answers only unchecked",
        ),
        (
            f"`kill -9` of {len(kills)} commands and processes that write, train or serve",
            f"{killed:,} kills",
            f"{lost} lost, {wrong} wrong",
        ),
        (
            f"hostile input to {len(fuzzed['by_reader'])} readers of files and requests",
            f"{fuzzed['cases']:,} cases",
            f"{fuzzed['finds']} found, all mended",
        ),
        (
            f"{load['readers']} processes of {load['threads']} threads read while others replace, append and remove",
            f"{load['answers']:,} answers",
            f"{load['wrong']} wrong",
        ),
        (
            f"a server among bad clients, {soak['seconds'] / 60:.0f} minutes",
            f"{soak['asked'] + soak['rubbish'] + soak['lies'] + soak['hung up']:,} requests",
            f"{soak['wrong']} wrong; memory {soak['memory_mib'][1]:.0f} → {soak['memory_mib'][3]:.0f} MiB",
        ),
        (
            "inputs of odd sizes, packed bombs, pipes, devices",
            f"{len(sizes)} cases",
            f"{sum(not row['right'] for row in sizes)} beyond their time or memory",
        ),
    ]
    head = "| fault | tried | what happened |\n|---|---|---|"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


def readme_filled(page: str, found: Mapping[str, Any], fuzzed: Mapping[str, Any]) -> str:
    """The README with its table in place; it has no marks, since each would be a line."""
    begin = page.index("| fault | tried |")
    end = page.index("\n\n", begin)
    return page[:begin] + readme(found, fuzzed) + page[end:]


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page of reliability with its tables in place."""
    return _filled(page, {"promises": promises(found), "kills": kills(found), "sizes": sizes(found)})


def fuzz_filled(page: str, found: Mapping[str, Any]) -> str:
    """The page of hostile input with its table in place."""
    return _filled(page, {"readers": readers(found)})


def _filled(page: str, tables: Mapping[str, str]) -> str:
    """A page with tables between their marks."""
    for mark, table in tables.items():
        before, _, rest = page.partition(f"<!-- {mark} -->")
        _, _, after = rest.partition("<!-- end -->")
        page = f"{before}<!-- {mark} -->\n\n{table}\n\n<!-- end -->{after}"
    return page


def results() -> dict[str, Any]:
    """What was found last."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8")))


def fuzz_results() -> dict[str, Any]:
    """What was found last in readers."""
    return dict(json.loads(FUZZ_RESULTS.read_text(encoding="utf-8"))["fuzzing"])


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results()), encoding="utf-8")
    README.write_text(readme_filled(README.read_text(encoding="utf-8"), results(), fuzz_results()), encoding="utf-8")
    FUZZ_PAGE.write_text(fuzz_filled(FUZZ_PAGE.read_text(encoding="utf-8"), fuzz_results()), encoding="utf-8")
