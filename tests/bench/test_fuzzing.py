"""Every reader under hostile input: what was once found stays mended, a few new cases each, and planted faults."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
if not hasattr(os, "fork"):
    pytest.skip("cases are read in forks of a process", allow_module_level=True)

from bench.trust import fuzzing, page
from bench.trust.choosing import draw
from bench.trust.fuzzing import fuzz
from bench.trust.inputs import Input, Reader
from bench.trust.mutating import mutate
from bench.trust.readers import READERS
from corpus_teacher.errors import InputError

FOUND = Path(__file__).parent / "found_by_fuzzing"
SEED = 20_261_129


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_nothing_is_found(name: str) -> None:
    known = [path.read_bytes() for path in sorted(FOUND.glob(f"{name}.*"))]
    outcome = fuzz(READERS[name], cases=20, drawn=10, seed=SEED, known=known)
    assert outcome.cases == 20 + outcome.drawn + len(known)
    assert outcome.drawn
    assert not outcome.finds, [f"{find.kind}: {find.what}: {find.case[:200]!r}" for find in outcome.finds.values()]


def test_cases_that_were_found_are_of_readers() -> None:
    assert {path.name.rpartition(".")[0] for path in FOUND.iterdir()} <= READERS.keys()


def _reader(read: Callable[[bytes], object]) -> Reader:
    """A reader that reads what is given in its folder, and then does what a test plants for all but the sample."""

    def prepare(folder: Path) -> Input:
        def told(content: bytes) -> None:
            (folder / "file").write_bytes(content)
            if content != b"sample":
                read(content)

        return Input([b"sample"], told)

    return Reader("planted", prepare)


def _wait(content: bytes) -> None:
    time.sleep(60)


def _spin(content: bytes) -> None:
    while True:
        pass


def _abort(content: bytes) -> None:
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.abort()


@pytest.mark.parametrize(
    ("kind", "what", "read"),
    [
        ("exception", "KeyError", lambda content: {}["x"]),
        ("crash", "SIGABRT", _abort),
        ("crash", "exit 3", lambda content: os._exit(3)),
        ("hang", "SIGPROF", _spin),
        ("hang", "SIGALRM", _wait),
        ("memory", "MiB", lambda content: np.ones(25 << 20)),
        ("outside", "/etc/hostname", lambda content: open("/etc/hostname").close()),
        ("outside", "to write", lambda content: Path(fuzzing.__file__).open("ab").close()),
        ("outside", "subprocess", lambda content: subprocess.run([sys.executable, "-c", ""])),
    ],
    ids=lambda value: value if isinstance(value, str) else "read",
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: str, what: str, read: Callable[[bytes], object]
) -> None:
    monkeypatch.setattr(fuzzing, "HANG_S", 0.2 if what == "SIGPROF" else 10)
    monkeypatch.setattr(fuzzing, "WAIT_S", 1 if what == "SIGALRM" else 60)
    outcome = fuzz(_reader(read), cases=0, known=[b"\0sample", b"\0other", b"\0sample"])
    assert outcome.cases == 3  # and what comes after it is read
    assert [(find.kind, find.case) for find in outcome.finds.values()] == [(kind, b"\0other")]
    assert what in next(iter(outcome.finds.values())).what


def test_what_is_refused_and_what_is_fine_are_no_finds() -> None:
    def refuse(content: bytes) -> None:
        raise InputError("no")

    outcome = fuzz(_reader(refuse), cases=0, known=[b"\0sample", b"\0other"])
    assert (outcome.cases, outcome.refused, outcome.finds) == (2, 1, {})


def test_a_library_that_panics_takes_no_memory_to_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(content: bytes) -> None:
        if os.environ["RUST_BACKTRACE"] != "0":
            raise KeyError

    monkeypatch.setenv("RUST_BACKTRACE", "1")
    assert not fuzz(_reader(read), cases=0, known=[b"\0other"]).finds


def test_a_reader_changes_the_environment_for_itself_alone() -> None:
    def prepare(folder: Path) -> Input:
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        return Input([b"x"], len)

    before = dict(os.environ)
    fuzz(Reader("planted", prepare), cases=1)
    assert dict(os.environ) == before


def test_a_reader_that_refuses_its_sample_tests_nothing() -> None:
    def refuse(content: bytes) -> None:
        raise InputError("no")

    with pytest.raises(InputError):
        fuzz(Reader("planted", lambda folder: Input([b"x"], refuse)), cases=1)


def test_a_campaign_counts_and_hands_its_finds_on(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[str] = []
    reader = _reader(lambda content: {}["x"])
    found = fuzzing.campaign([reader], cases=20, seed=1, keep=lambda name, find: kept.append(f"{name} {find.kind}"))
    assert (found["cases"], found["finds"], kept) == (20, 1, ["planted exception"])
    assert found["by_reader"]["planted"]["finds"][0].startswith("exception: KeyError")
    assert "planted" in capsys.readouterr().out


def test_seconds_are_of_a_processor() -> None:
    outcome = fuzz(_reader(lambda content: time.sleep(0.1)), cases=20, seconds=1.0)
    assert outcome.cases == 20


def test_campaigns_are_added_up() -> None:
    told: list[int] = []
    reader = _reader(lambda content: {}["x"])
    first = fuzzing.campaign([reader], cases=20, seed=1)
    both = fuzzing.campaign([reader], cases=30, seed=2, before=first, told=lambda found: told.append(found["cases"]))
    assert (both["cases"], told, both["seeds"]) == (50, [50], [1, 2])
    assert both["finds"] == 1  # the same one again
    assert first["cases"] == 20
    drawn = fuzzing.campaign([reader], cases=0, drawn=10, before=both)
    assert drawn["cases"] == 50 + drawn["drawn"] > 50
    assert (drawn["drawn"], drawn["guided"]) == (drawn["by_reader"]["planted"]["drawn"], 0)


def test_the_page_says_what_the_run_gave() -> None:
    found = page.fuzz_results()
    text = page.FUZZ_PAGE.read_text(encoding="utf-8")
    assert page.fuzz_filled(text, found) == text, "python -m bench.trust.page"
    assert f"| all | {found['cases']:,} |" in text
    assert found["cases"] == sum(one["cases"] for one in found["by_reader"].values())
    assert found["by_reader"].keys() <= READERS.keys()


def test_cases_are_a_function_of_seed_and_number() -> None:
    def cases(seed: int) -> list[bytes]:
        given = Input([b'{"a": [1, 2.5, "x", {"b": null}]}'], len, structure="json")
        return [fuzzing._case(given, "planted", seed, number) for number in range(50)]

    assert cases(0) == cases(0)
    assert cases(0) != cases(1)
    assert len(set(cases(0))) > 40


def test_a_fault_that_only_hypothesis_plants_is_found() -> None:
    """A list with a table in it that isn't empty: no list of odd values has one."""

    def prepare(folder: Path) -> Input:
        def read(content: bytes) -> None:
            (folder / "file").write_bytes(content)
            with contextlib.suppress(ValueError, RecursionError):
                table = json.loads(content)
                values = table.get("a") if isinstance(table, dict) else None
                if isinstance(values, list) and any(value and isinstance(value, dict) for value in values):
                    raise KeyError

        return Input([b'{"a": 1, "b": [1, {"c": null}]}'], read, structure="json")

    reader = Reader("planted", prepare)
    assert not fuzz(reader, cases=600, seed=3).finds
    outcome = fuzz(reader, cases=0, drawn=600, seed=3)
    assert outcome.drawn == outcome.cases > 300
    assert [find.kind for find in outcome.finds.values()] == ["exception"]


def test_hypothesis_draws_for_every_structure() -> None:
    samples = {"json": b'{"a": 1}', "lines": b'{"a": 1}\n{"b": 2}', "toml": b'a = 1\n[b]\nc = "x"\n', None: b"abcd"}
    for structure, sample in samples.items():
        made: set[bytes] = set()
        draw(made.add, Input([sample], len, structure=structure), 1, 200, 60.0)
        assert len(made) > 100, structure
        assert {case[0] for case in made} == {0, 1}


def test_values_of_every_structure_are_exchanged() -> None:
    import random

    samples = {"json": b'{"a": 1}', "lines": b'{"a": 1}\n{"b": 2}', "toml": b'a = 1\n[b]\nc = "x"\n'}
    for structure, sample in samples.items():
        made = {mutate(random.Random(seed), sample, [sample], structure) for seed in range(200)}
        assert len(made) > 120, structure
