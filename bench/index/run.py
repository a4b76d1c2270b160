"""One size of corpus: every contender built, opened, asked and judged."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpora import Corpus
from bench.index.contender import Answers, Contender
from bench.index.judge import Comparison, compare, oracle_answers, oracle_sample, sample_positions, take
from bench.index.oracle import Oracle
from bench.index.process import WorkerFailed, run_job
from bench.index.rows import Row

REPEAT_BUILDS_UNDER_S = 60.0
BUILD_SECTIONS = {"build", "memory", "disk"}


@dataclass(frozen=True)
class Settings:
    """What a run does."""

    sections: tuple[str, ...]
    runs: int
    budget_s: float
    build_runs: int
    peer_cores: tuple[int, ...]
    limit_s: float


def say(sentence: str) -> None:
    """Progress, for people."""
    print(f"[{time.strftime('%H:%M:%S')}] {sentence}", file=sys.stderr, flush=True)


def _joined(*notes: str | None) -> str:
    return "; ".join(filter(None, notes))


class SizeRun:
    """The state of one size: its corpus, its queries, the rows so far, and every contender's answers."""

    def __init__(
        self,
        corpus: Corpus,
        slices: dict[str, np.ndarray],
        work: Path,
        answers_folder: Path,
        settings: Settings,
    ) -> None:
        self.corpus, self.slices, self.work, self.settings = corpus, slices, work, settings
        self.answers_folder = answers_folder
        queries = hashlib.sha256(b"".join(part.tobytes() for part in slices.values())).hexdigest()[:8]
        self.fingerprint = f"{corpus.fingerprint}-{queries}"
        self.rows_path = work / f"rows_{corpus.name}_{self.fingerprint}.npz"
        np.savez(self.rows_path, **slices)  # type: ignore[arg-type]
        self.rows: list[Row] = []

    def row(self, values: Sequence[float], section: str, contender: Contender, **fields: Any) -> Row:
        """A row of this size, kept."""
        fields.setdefault("note", contender.notes.get(section, ""))
        made = Row.of(
            values,
            size=self.corpus.name,
            section=section,
            who=contender.name,
            fingerprint=self.fingerprint,
            **fields,
        )
        self.rows.append(made)
        return made

    def answers_path(self, contender: Contender) -> Path:
        """Where a contender's answers lie, for the judge of this run and of later ones."""
        return self.answers_folder / f"{self.corpus.name}-{self.fingerprint}-{contender.name}.npz"

    def run(self, contender: Contender) -> None:
        """Everything that one contender does; what goes wrong becomes a row."""
        reason = contender.missing()
        status = "skipped"
        if reason is None:
            try:
                self._builds(contender)
                self._queries(contender)
                return
            except WorkerFailed as failure:
                reason, status = str(failure), "failed"
        say(f"{self.corpus.name} {contender.name}: {status}, {reason}")
        self.rows.append(Row(self.corpus.name, "contender", contender.name, status=status, note=reason))

    def _folder(self, contender: Contender) -> Path:
        return self.work / f"{self.corpus.name}-{contender.name}"

    def _job(self, contender: Contender, phases: list[str], cores: int, **options: Any) -> dict[str, Any]:
        options |= {"phases": phases, "folder": self._folder(contender), "cores": cores}
        return run_job(contender.name, self.corpus, self.work, timeout_s=self.settings.limit_s, **options)

    def _builds(self, contender: Contender) -> None:
        """The builds of an index that outlives its process; that of one in memory is part of its queries."""
        measured = bool(BUILD_SECTIONS & set(self.settings.sections))
        asked = {"open", *contender.sections, *(["threads"] if contender.is_ours else [])}
        if contender.is_ours:
            # Compiles into the cache that all workers of this run share; counts in nothing.
            self._job(contender, [], max(contender.build_cores))
        if contender.in_memory or not (measured or asked & set(self.settings.sections)):
            return
        offered = contender.build_cores
        if not contender.is_ours:
            offered = tuple(cores for cores in offered if cores in self.settings.peer_cores)
        for cores in offered if measured else offered[:1]:
            self._repeated_build(contender, cores)

    def _repeated_build(self, contender: Contender, cores: int) -> None:
        results = [self._job(contender, ["build"], cores)]
        while len(results) < self.settings.build_runs and results[0]["build"]["build_s"] < REPEAT_BUILDS_UNDER_S:
            results.append(self._job(contender, ["build"], cores))
        self._build_rows(contender, cores, results)

    def _build_rows(self, contender: Contender, cores: int, results: list[dict[str, Any]]) -> None:
        built = [result["build"] for result in results]
        wrong = next((report["wrong"] for report in built if report["wrong"]), None)
        state = {"status": "void" if wrong else "ok", "cores": cores}
        num_tokens, sections = self.corpus.num_tokens, self.settings.sections
        seconds = [report["build_s"] for report in built]
        listed = ", ".join(f"{s:.1f}" for s in seconds)
        say(f"{self.corpus.name} {contender.name}: built on {cores} in {listed} s")
        if "build" in sections:
            share = min(report["cpu_share"] for report in built)
            note = _joined(contender.notes.get("build"), wrong)
            self.row(seconds, "build", contender, note=note, details={"cpu_share": share}, **state)
        if "memory" in sections:
            over = [(report["peak_bytes"] - report["baseline_bytes"]) / num_tokens for report in built]
            details = {key: max(report[key] for report in built) for key in ("peak_bytes", "baseline_bytes")}
            details["peak_anonymous_bytes"] = max(result["peak_anonymous_bytes"] for result in results)
            peak, anonymous = (details[key] / 1e6 for key in ("peak_bytes", "peak_anonymous_bytes"))
            files = None if contender.in_memory else f"not backed by files {anonymous:,.0f} MB"
            note = _joined(f"peak of the process {peak:,.0f} MB", files)
            self.row(over, "memory", contender, note=note, details=details, **state)
        sizes = built[-1]["size_bytes"]
        known = any(row.section == "disk" and row.who == contender.name for row in self.rows)
        if "disk" in sections and sizes and not known:
            per_token = {name: size / num_tokens for name, size in sizes.items()}
            note = ", ".join(f"{name} {share:.2f}" for name, share in per_token.items() if share >= 0.005)
            self.row([sum(per_token.values())], "disk", contender, note=note, details={"files": sizes})

    def _queries(self, contender: Contender) -> None:
        wanted = set(self.settings.sections)
        sections = [section for section in contender.sections if section in wanted]
        options = {
            "sections": sections,
            "rows_path": self.rows_path,
            "answers_path": self.answers_path(contender),
            "runs": self.settings.runs,
            "budget_s": self.settings.budget_s,
        }
        if contender.in_memory and not sections:
            if wanted & BUILD_SECTIONS:
                self._repeated_build(contender, 1)
        elif sections or "open" in wanted:
            result = self._job(contender, ["build", "query"] if contender.in_memory else ["query"], 1, **options)
            if contender.in_memory:
                self._build_rows(contender, 1, [result])
            elif "open" in wanted:
                self.row([seconds * 1e3 for seconds in result["open_s"]], "open", contender)
            for key, rates in result["rates"].items():
                section, name = key.split("/")
                self._rate_row(rates, section, contender, slice=name)
        if contender.is_ours and "threads" in wanted:
            self._threads(contender, {**options, "sections": ["threads"], "answers_path": self.work / "none.npz"})
        shutil.rmtree(self._folder(contender), ignore_errors=True)

    def _rate_row(self, rates: list[list[float]], section: str, contender: Contender, **fields: Any) -> Row:
        share = min(share for _, share in rates)
        note = _joined(contender.notes.get(section), f"had {share:.0%} of a core" if share < 0.92 else None)
        values = [rate for rate, _ in rates]
        made = self.row(values, section, contender, note=note, details={"cpu_share": share}, **fields)
        place = f"{section} {fields.get('slice', '')}"
        say(f"{self.corpus.name} {contender.name}: {place} {made.value:,.0f} positions/s")
        return made

    def _threads(self, contender: Contender, options: dict[str, Any]) -> None:
        result = self._job(contender, ["query"], 2, **options)
        for key, rates in result["rates"].items():
            _, name, threaded = key.split("/")
            one = self._rate_row(rates["one"], "threads", contender, slice=f"{threaded}, {name}", cores=1)
            two = self._rate_row(rates["two"], "threads", contender, slice=f"{threaded}, {name}", cores=2)
            # Pairs of runs stand side by side in time, so a busy spell hits both.
            pairs = zip(rates["one"], rates["two"], strict=True)
            two.details["speedup"] = statistics.median(second / first for (first, _), (second, _) in pairs)
            two.note = _joined(f"{two.details['speedup']:.2f} × {one.cores} thread", two.note)

    def load_answers(self, contender: Contender) -> dict[str, Answers]:
        """A contender's answers by `section/slice`; none where it left none."""
        path = self.answers_path(contender)
        if not path.exists():
            return {}
        with np.load(path) as stored:
            keys = dict.fromkeys(name.rsplit("/", 1)[0] for name in stored.files)
            return {key: Answers(**{part: stored[f"{key}/{part}"] for part in Answers._fields}) for key in keys}

    def judge(self, contenders: Sequence[Contender]) -> None:
        """Compares all answers, voids the rows that differ: everyone with the oracle, ours with the peers."""
        say(f"{self.corpus.name}: the oracle answers the sample")
        oracle = Oracle(self.corpus.tokens, self.corpus.doc_starts)
        answers = {contender.name: self.load_answers(contender) for contender in contenders}
        ours = next((contender.name for contender in contenders if contender.is_ours), None)
        asked = {key for found in answers.values() for key in found}
        for key in sorted(asked):
            section, name = key.split("/")
            rows = self.slices[name]
            sample = sample_positions(rows.shape, section)
            truth = oracle_answers(oracle, section, rows, sample)
            for contender in contenders:
                theirs = answers[contender.name].get(key)
                if theirs is None:
                    continue
                limits = {"cap": contender.context_cap, "exact_up_to": contender.exact_up_to}
                with_oracle = compare(section, truth, take(theirs, oracle_sample(sample)), **limits)
                self._verdict(key, contender.name, "oracle", with_oracle)
                mine = answers[ours].get(key) if ours is not None else None
                if mine is not None and contender.name != ours:
                    self._verdict(key, ours or "", contender.name, compare(section, mine, theirs, **limits))

    def _verdict(self, key: str, who: str, witness: str, comparison: Comparison) -> None:
        section, name = key.split("/")
        for row in self.rows:
            if row.who != who or row.section != section or row.slice != name:
                continue
            row.details.setdefault("judged", {})[witness] = str(comparison)
            if comparison.differing:
                row.status = "void"
                row.note = _joined(row.note, f"{witness}: {comparison}")
                say(f"{row.size} {who}: {key} is void, {witness} {comparison}")
