"""The campaigns against trust, in small: they find what they plant, and nothing else."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from corpus_index import build_index, open_index

from bench.trust import __main__ as campaigns
from bench.trust import flips, kill_rays, kills, load, page, soak
from bench.trust.__main__ import failures
from bench.trust.kill_cases import NOTHING, UNFINISHED, Case
from bench.trust.killing import Plan, run_killed
from bench.trust.kills import Campaign
from corpus_teacher.errors import InputError

FEW = ("witten-bell", "kneser-ney")  # others' kernels take their time to compile


def test_no_flip_crashes_or_hangs() -> None:
    found = flips.campaign(68, fitted=FEW)
    assert found["tried"] == 68
    assert (found["crash"], found["hang"], found["exception"]) == (0, 0, 0), found["worst"]
    assert found["refused"] > 0
    assert found["wrong"] > 0  # unchecked is unchecked


def test_continuations_that_no_vocabulary_has_crash_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build_index(path=path, **flips.small_corpus(1, wide=False)).close()
    size = (path / "next_tokens.bin").stat().st_size
    planned = [flips.Flip("next_tokens.bin", place, "ff" * 4000) for place in range(0, size - 4000, 2000)]
    outcomes = flips.run_flips(path, planned, seed=1, fitted=FEW)
    assert {outcome.kind for outcome in outcomes} <= {"right", "refused", "wrong"}, outcomes


def test_a_crash_and_a_hang_are_counted_and_the_files_are_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    build_index(path=path, **flips.small_corpus(0, wide=False)).close()
    planned = flips.flips_of(path, 6, 0)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    calls = []

    def ask(*arguments: object) -> tuple[str, str, dict[str, str]]:
        calls.append(1)
        changed = (path / planned[1].file).read_bytes() != before[planned[1].file]
        if changed:
            ctypes.string_at(0)
        while (path / planned[2].file).read_bytes() != before[planned[2].file]:
            pass
        return "right", "", {}

    monkeypatch.setattr(flips, "ask", ask)
    outcomes = flips.run_flips(path, planned, hang_s=0.5, fitted=())
    assert [(outcome.kind, outcome.more) for outcome in outcomes[:3]] == [
        ("right", ""),
        ("crash", "SIGSEGV"),
        ("hang", "SIGPROF"),
    ]
    assert [outcome.kind for outcome in outcomes[3:]] == ["right"] * 3
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_flips_are_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def part_of(count: int, seed: int, **options: object) -> dict[str, object]:
        asked.append((count, seed))
        found = {"tried": count, "seeds": [seed], "deep": False, **dict.fromkeys(flips.OUTCOMES, 0), "right": count}
        return {**found, "by_file": {"a.bin": {**dict.fromkeys(flips.OUTCOMES, 0), "right": count}}, "worst": []}

    monkeypatch.setattr(flips, "part_of", part_of)
    monkeypatch.setattr(flips, "PART", 4)
    told: list[int] = []
    found = flips.campaign(10, seed=3, told=lambda found: told.append(found["tried"]))
    assert asked == [(4, 3), (4, 4), (2, 5)]
    assert told == [4, 8, 10]
    more = flips.campaign(13, before=found)
    assert asked[3:] == [(3, 6)]
    assert (more["tried"], more["seeds"], more["right"], more["by_file"]["a.bin"]["right"]) == (
        13,
        [3, 4, 5, 6],
        13,
        13,
    )


def test_estimators_are_asked_in_turns_each_as_often() -> None:
    kept = dict.fromkeys("abcdefg")
    asked = Counter(name for turn in range(7) for name in flips.some_of(kept, turn))
    assert asked == dict.fromkeys("abcdefg", 2)
    assert flips.some_of({}, 3) == {}


# kills


def _write(folder: Path, content: str) -> None:
    (folder / "partial").write_text(content)
    (folder / "partial").rename(folder / "file")


def _state(folder: Path) -> str:
    path = folder / "file"
    return path.read_text() if path.exists() else NOTHING


def _case(operate: Callable[[Path], object], state: Callable[[Path], str] = _state) -> Case:
    return Case("write", lambda folder: _write(folder, "old"), operate, state)


def test_a_command_that_writes_and_renames_loses_nothing(tmp_path: Path) -> None:
    found = Campaign(_case(lambda folder: _write(folder, "new")), tmp_path).run(12)
    assert found["killed"] == 12
    assert (found["lost"], found["wrong"], found["left"]) == (0, 0, 0), found
    assert 0 < found["resumed"] == found["bit_equal"]
    assert found["calls"] == 2


@pytest.mark.parametrize(
    ("operate", "kind"),
    [
        (lambda folder: ((folder / "file").unlink(), _write(folder, "new")), "lost"),
        (lambda folder: [(folder / "file").write_text(part) for part in ("ne", "new")], "wrong"),
    ],
)
def test_what_a_command_loses_is_counted(tmp_path: Path, operate: Callable[[Path], object], kind: str) -> None:
    assert Campaign(_case(operate), tmp_path).run(8)[kind] > 0


def test_what_is_left_and_what_differs_is_counted(tmp_path: Path) -> None:
    def operate(folder: Path) -> None:
        made = folder / f"scratch-{os.getpid()}"
        made.touch()
        _write(folder, "new")
        made.unlink()
        (folder / "runs").open("a").write("x")

    found = Campaign(_case(operate), tmp_path).run(12)
    assert found["left"] > 0
    assert found["bit_equal"] < found["resumed"]
    assert any("scratch-" in fault for fault in found["faults"])
    assert failures("kills", {"write": found}) > 0


def test_a_case_whose_end_looks_unfinished_is_none(tmp_path: Path) -> None:
    """Its judge would take every half for the whole."""
    case = _case(lambda folder: _write(folder, "new"), lambda folder: UNFINISHED)
    with pytest.raises(AssertionError, match="what is done says unfinished"):
        Campaign(case, tmp_path).run(1)


def test_kills_are_gone_on_with() -> None:
    case = _case(lambda folder: _write(folder, "new"))
    told: list[dict[str, int]] = []
    found = kills.campaign([case], 4, say=len, told=told.append)
    more = kills.campaign([case], 10, say=len, before=found, told=told.append)
    assert [one["write"]["killed"] for one in told] == [4, 10]
    assert more == told[1]
    assert more["write"]["bit_equal"] == more["write"]["resumed"] > found["write"]["resumed"]
    assert kills.campaign([case], 10, say=len, before=more) == more  # nothing is left to do


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index build --ray", "RayIndex", "RayIndex, an actor"])
def test_kills_on_a_ray_cluster_lose_nothing(name: str) -> None:
    pytest.importorskip("ray", reason="Ray isn't installed: pip install corpus-teacher[ray]")
    found = json.loads(_run("--only", "kills", "--command", name, "--kills", "2")[-1])["kills"]
    assert found[name]["killed"] == 2
    assert failures("kills", found) == 0, found


def test_what_is_killed_beside_who_asks_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster: a process of the test's own is the victim, and the answers are planted."""
    answers = iter(["good", "good", "GOOD", "OTHER", InputError("IT IS GONE"), "good", KeyError("X")])
    hit = threading.Semaphore(0)

    def turn(folder: Path) -> str:
        answer = next(answers)
        if str(answer).isupper():  # something is killed meanwhile
            assert hit.acquire(timeout=60)
        if isinstance(answer, Exception):
            raise answer
        return answer.lower()

    class Victims:
        def called(self, title: str) -> list[int]:
            hit.release()
            return [subprocess.Popen(["sleep", "60"]).pid]

    monkeypatch.setattr(kill_rays, "cluster", Victims)
    case = Case("asked", lambda folder: None, turn, lambda folder: "good", campaign=kill_rays.Kills)
    found = kill_rays.Kills(case, tmp_path).run(4)
    assert (found["killed"], found["lost"], found["wrong"], found["resumed"], found["bit_equal"]) == (4, 1, 1, 3, 1)
    assert found["faults"] == ["wrong: other", "refused: IT IS GONE", "lost: KeyError: 'X'"]


def test_what_a_child_has_loaded_another_process_loads(tmp_path: Path) -> None:
    tells = (
        "import colorsys, sys; from bench.trust import flips; from bench.trust.killing import loaded_here;"
        "from corpus_index import build_index;"
        "build_index(path=sys.argv[1], **flips.small_corpus(1, wide=False)).close();"
        "sys.stdout.buffer.write(loaded_here())"
    )
    loads = (
        "import pickle, sys; from bench.trust.killing import load, loaded_here;"
        "given = sys.stdin.buffer.read(); load(given); found = pickle.loads(loaded_here());"
        "print('colorsys' in found[0]); print(set(pickle.loads(given)[1]) <= set(found[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", tells, str(tmp_path / "index")]
    given = subprocess.run(command, capture_output=True, env=environment, check=True).stdout
    assert len(pickle.loads(given)[1]) > 5
    done = subprocess.run([sys.executable, "-c", loads], input=given, capture_output=True, env=environment)
    assert done.stdout.split() == [b"True", b"True"], done.stderr.decode()


def test_a_kill_at_a_time_and_at_a_call_hits(tmp_path: Path) -> None:
    def write() -> None:
        (tmp_path / "first").write_text("")
        (tmp_path / "second").write_text("")
        time.sleep(100)

    def killed(plan: Plan) -> bool:
        return run_killed(write, plan, log=tmp_path / "log", limit_s=100).killed

    assert killed(Plan(call=1))
    assert (tmp_path / "first").exists()
    assert not (tmp_path / "second").exists()
    assert killed(Plan(after_s=0.2))
    assert run_killed(lambda: sys.exit(2), Plan(), log=tmp_path / "log").code == 2


def _run(*options: str) -> list[str]:
    """The lines of a call of the command, which found nothing bad."""
    return _python("-m", "bench.trust", "--quick", *options)


def _python(*arguments: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "trust.json"
    out.write_text('{"kills": {"other": 1}, "fuzz": 2}')
    lines = _run("--only", "kills", "--command", "index append", "--kills", "3", "--out", str(out))
    found, told = json.loads(out.read_text())["kills"], json.loads(lines[-1])["kills"]
    assert told["index append"]["killed"] > 0
    assert re.fullmatch(r"kills: \d+ s, \d+ s of a processor", lines[-2])
    assert found == {"other": 1, **told}
    assert json.loads(out.read_text())["fuzz"] == 2


def test_sections_run_side_by_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    both, sections = threading.Barrier(2), {"kills": {}, "sizes": {}}

    def run(name: str, out: Path) -> None:
        both.wait(60)
        out.write_text(json.dumps({name: sections[name]}))

    monkeypatch.setattr(campaigns, "_in_a_process", run)
    monkeypatch.setattr(campaigns, "_ALONE", {})
    monkeypatch.setattr(sys, "argv", ["trust", "--only", "kills,sizes"])
    assert campaigns.main() == 0
    assert sections.items() <= json.loads(capsys.readouterr().out).items()


def test_what_a_section_says_stands_behind_its_name(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["trust", "--size", "pipe"])
    campaigns._in_a_process("sizes", tmp_path / "sizes.json")
    assert json.loads((tmp_path / "sizes.json").read_text())["sizes"]["pipe"]["right"]
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) > 2
    assert all(line.startswith("sizes | ") for line in lines)


# load and soak


@pytest.mark.slow
def test_readers_beside_a_writer_are_told_what_one_thread_is() -> None:
    code = "import json; from bench.trust.load import campaign; print(json.dumps(campaign(4, readers=2, threads=4)))"
    found = json.loads(_python("-c", code)[-1])
    assert failures("load", found) == 0, found
    assert found["changes"] > 0
    assert found["answers"] > 0


def test_an_answer_of_another_state_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "index"
    load.changes()[0][1](path).close()
    with open_index(path) as index:
        right = {load.key_of(index): {**load.answers(index), "match": "other"}}
    for expected, wrong in ((right, 2), ({}, 1)):
        counts: Counter[str] = Counter()
        with open_index(path) as index, ThreadPoolExecutor(2) as pool:
            load._ask(index, expected, random.Random(0), pool, 2, counts)
        assert counts["wrong"] == wrong


@pytest.mark.slow
def test_a_server_among_bad_clients_stays_right() -> None:
    pytest.importorskip("starlette", reason="the server needs the extra serve")
    found = json.loads(_run("--only", "soak", "--soak", "6")[-1])["soak"]
    assert failures("soak", found) == 0, found
    assert min(found[name] for name in ("asked", "rubbish", "lies", "hung up")) > 0, found


def test_what_is_not_flat_and_not_right_is_counted() -> None:
    assert soak.quarters([1.0, 1, 2, 2, 3, 3, 4, 4]) == [1, 2, 3, 4]
    found = {**dict.fromkeys(("wrong", "errors", "died", "exit_code", "tracebacks"), 0), "descriptors_grew": 1}
    assert failures("soak", {**found, "memory_grew": 0}) == 1


# the page


def test_the_page_says_what_was_found() -> None:
    found = page.results()
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, found) == text, "python -m bench.trust.page"
    for name in ("flips", "kills", "load", "soak"):
        assert failures(name, found[name]) == 0
    changed = {**found, "load": {**found["load"], "wrong": 1}}
    assert page.filled(text, changed) != text
    text = page.README.read_text(encoding="utf-8")
    assert page.readme_filled(text, found, page.fuzz_results()) == text, "python -m bench.trust.page"
    assert page.readme_filled(text, changed, page.fuzz_results()) != text
