"""Kills of every command that writes: what stands afterwards, and whether a rerun ends as if nothing had been killed.

For each command one process imports and compiles once, and forks: a child runs the command and is killed. A first run,
in a child that isn't killed, tells which modules it imported and which kernels it ran; the parent loads the same before
all other forks, so that a kill costs what the command does, and not what an interpreter does to get there. Half of the
kills before a call that changes files (each in its turn, evenly drawn where there are more calls than kills), half at
random times. Another child then opens what stands there and asks it. In half of the cases the rerun is killed too,
once or more; at last a rerun goes to the end. Counted for each command:

    killed       kills that hit
    lost         what stood before, or a work that was begun, can't be read or gone on with any more
    wrong        something opens and is neither the old nor the new
    resumed      reruns that went to the end
    bit_equal    of these, those that left the very bytes that an unkilled run leaves
    left         of these, those beside which something else is left in the folder
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.trust.fuzzing import in_memory
from bench.trust.kill_cases import INDEXES, NOTHING, UNFINISHED, Case
from bench.trust.killing import Plan, at_calls, load, loaded_here, run_killed

COUNTED = ("killed", "lost", "wrong", "resumed", "bit_equal", "left")
_MOST_IN_A_ROW = 3
_NEVER = Plan()


class Campaign:
    """The kills of one command; `run` counts."""

    def __init__(self, case: Case, place: Path, seed: int = 0) -> None:
        self.case = case
        self.folder, self.prepared, self.log = place / "work", place / "prepared", place / "log"
        self.told = place / "told"
        self.random = random.Random(f"{seed} {case.name}")
        self.counts = dict.fromkeys(COUNTED, 0)
        self.faults: list[str] = []

    # in children

    def _in_folder(self, work: Callable[[Path], object]) -> Callable[[], object]:
        def go() -> object:
            os.chdir(self.folder)
            return work(self.folder)

        return go

    def _run(self, work: Callable[[Path], object], plan: Plan = _NEVER) -> Any:
        return run_killed(self._in_folder(work), plan, log=self.log)

    def _asked(self, question: Callable[[Path], str]) -> str:
        """The answer of a child; "unreadable: …" where it ended otherwise."""
        self.told.unlink(missing_ok=True)
        ended = self._run(lambda folder: self.told.write_text(question(folder)))
        if ended.code == 0:
            return self.told.read_text()
        return f"unreadable: {self._last_line()}"

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].replace(f"{self.folder}", ".")[:300] if lines else "no word"

    # the campaign

    def _fresh(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.prepared, self.folder, symlinks=True)

    def prepare(self) -> None:
        """What stands before, and what an unkilled run makes of it: states, files, calls, seconds."""
        self.folder.mkdir()
        ended = self._run(self.case.prepare)
        assert ended.code == 0, f"{self.case.name}: the preparation failed: {self._last_line()}"
        shutil.copytree(self.folder, self.prepared, symlinks=True)
        self.old = self._asked(self.case.state)
        counted, loaded = self.told.with_name("calls"), self.told.with_name("loaded")

        def operate(folder: Path) -> object:
            with counted.open("wb", buffering=0) as file, loaded.open("wb") as told:
                at_calls(lambda number: file.write(b".") and None)
                try:
                    return self.case.operate(folder)
                finally:
                    told.write(loaded_here())

        ended = self._run(operate)
        assert ended.code == 0, f"{self.case.name}: exit {ended.code} without a kill: {self._last_line()}"
        self.calls = counted.stat().st_size
        load(loaded.read_bytes())
        gc.freeze()  # no child copies what the parent holds only to look for garbage
        self.new, self.files = self._asked(self.case.state), self._asked(self.case.files)
        self.names = self._names()
        self._fresh()
        self.seconds = self._run(self.case.operate).seconds
        for state in (self.old, self.new, self.files):
            assert not state.startswith("unreadable"), f"{self.case.name}: {state}"
        assert self.new not in (NOTHING, UNFINISHED), f"{self.case.name}: what is done says {self.new}"
        assert self.files == self._asked(self.case.files), f"{self.case.name}: two unkilled runs differ"

    def _names(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def plans(self, kills: int) -> list[Plan]:
        """When to kill: half before calls, half at times."""
        half = min(self.calls, (kills + 1) // 2)
        calls = sorted(self.random.sample(range(self.calls), half))
        times = [self.random.uniform(0, self.seconds) for _ in range(kills - half)]
        return [Plan(call=call) for call in calls] + [Plan(after_s=after) for after in times]

    def run(self, kills: int, seconds: float = float("inf")) -> dict[str, Any]:
        """Kill that many times, or as often as it goes in some seconds; what was counted."""
        self.prepare()
        until = time.monotonic() + seconds
        plans = self.plans(kills)
        self.random.shuffle(plans)
        while plans and self.counts["killed"] < kills and time.monotonic() < until:
            self._fresh()
            first = True
            for _ in range(_MOST_IN_A_ROW):
                plan = plans.pop() if plans else Plan()
                self._kill(plan, first)
                first = False
                if not plans or self.random.random() < 0.5:
                    break
            self._resume()
            if not plans and self.counts["killed"] < kills:  # some came too late
                plans = [
                    Plan(after_s=self.random.uniform(0, self.seconds)) for _ in range(kills - self.counts["killed"])
                ]
        return {**self.counts, "calls": self.calls, "seconds": round(self.seconds, 2), "faults": self.faults[:20]}

    def _kill(self, plan: Plan, first: bool) -> None:
        if not first and self._asked(self.case.state) == self.new and not self.case.again:
            return
        ended = self._run(self.case.operate if first else self.case.resume or self.case.operate, plan)
        self.counts["killed"] += ended.killed
        if not ended.killed and ended.code:
            self._fault("lost", f"{plan}: exit {ended.code}: {self._last_line()}")
        self._judge(str(plan))

    def _judge(self, when: str) -> str:
        state = self._asked(self.case.state)
        if state.startswith("unreadable") or (state == NOTHING and self.old != NOTHING):
            self._fault("lost", f"{when}: {state}")
        elif state not in (self.old, self.new, UNFINISHED):
            self._fault("wrong", f"{when}: neither old nor new is found")
        return state

    def _resume(self) -> None:
        if self._asked(self.case.state) == self.new and not self.case.again:
            return
        ended = self._run(self.case.resume or self.case.operate)
        if ended.code:
            self._fault("lost", f"the rerun ends with {ended.code}: {self._last_line()}")
            return
        state = self._judge("after the rerun")
        if state != self.new:
            self._fault("wrong", f"the rerun leaves {state[:80]}")
        self.counts["resumed"] += 1
        same = self._asked(self.case.files) == self.files
        self.counts["bit_equal"] += same
        names = self._names()
        left = sorted(set(names) - set(self.names))
        self.counts["left"] += bool(left)
        if left or not same:
            self.faults.append(f"after the rerun: {'other bytes' if not same else 'the same bytes'}, left {left[:5]}")

    def _fault(self, kind: str, sentence: str) -> None:
        self.counts[kind] += 1
        self.faults.append(f"{kind}: {sentence}")


def all_cases() -> tuple[Case, ...]:
    """Every command that is killed; those on a Ray cluster where Ray is installed."""
    from bench.trust.kill_rays import RAYS, has_ray
    from bench.trust.kill_trainings import TRAININGS

    return (*INDEXES, *TRAININGS, *(RAYS if has_ray() else ()))


def campaign(
    cases: Sequence[Case],
    kills: int,
    seed: int = 0,
    *,
    seconds: float = float("inf"),
    say: Callable[[str], None] = print,
    before: Mapping[str, Any] | None = None,
    told: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """The kills of each command, at most that many seconds for each.

    before: what was found earlier, by command: it is gone on with, to `kills` in all, with other seeds. told: takes
    what is found of a command, in all.
    """
    found = {}
    for case in cases:
        earlier = (before or {}).get(case.name, {})
        done = earlier.get("killed", 0)
        if done < kills:
            case.warm()
            with tempfile.TemporaryDirectory(prefix="kills-", dir=in_memory()) as place:
                counts = (case.campaign or Campaign)(case, Path(place), seed + done).run(kills - done, seconds)
            found[case.name] = joined(earlier, counts) if earlier else counts
            told({case.name: found[case.name]})
        else:
            found[case.name] = dict(earlier)
        say(f"{case.name:28s}" + "".join(f"{found[case.name][name]:>11,d}" for name in COUNTED))
    return found


def joined(earlier: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    """The kills of one command in two campaigns, as one."""
    sums = {name: earlier[name] + counts[name] for name in COUNTED}
    return {**counts, **sums, "faults": [*earlier["faults"], *counts["faults"]][:20]}
