"""One size: the contenders in processes of their own, then who agrees with whom."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpora import Corpus
from bench.index.contender import Answers
from bench.index.judge import Comparison, compare
from bench.index.process import WorkerFailed, run_job
from bench.index.rows import Row
from bench.index.run import say
from bench.teacher.ours import Ours
from bench.teacher.peers import INFINITY, KENLM_SECTIONS, TeacherPeer
from bench.teacher.questions import TAILS, Questions

TITLES = {
    "flat": "smoothed targets, at most 64 pairs, positions/s, one thread",
    "mixed": "smoothed targets in mixed form, exact, positions/s, one thread",
    "whole": "smoothed targets from whole rows (no shortlists), positions/s, one thread",
    "score": "probability of the next token, positions/s, one thread",
    "texts": "probability of every token of texts, tokens/s, one thread",
    INFINITY: "∞-gram targets, positions/s, one thread",
    "threads": "two Python threads on two cores over half the rows each, positions/s",
    "tails": "the slowest position's cost over the median's",
}
SECTIONS = tuple(TITLES)
OURS_ONLY = {"mixed", "whole", "threads", "tails"}
TAILS_TIMEOUT_S = 1800
LOG10 = 1e-4
"""How far log10 of a probability may be from KenLM's."""


@dataclass(frozen=True)
class Settings:
    """What a run does."""

    sections: tuple[str, ...]
    runs: int
    least_s: float
    budget_s: float
    sample: int
    tail_positions: int
    tail_estimators: int
    quick: bool


class TeacherRun:
    """The rows of one size, and every contender's answers."""

    def __init__(self, corpus: Corpus, texts: dict[str, Questions], work: Path, settings: Settings) -> None:
        self.corpus, self.work, self.settings = corpus, work, settings
        parts = {f"{name}/{part}": x for name, text in texts.items() for part, x in text._asdict().items()}
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in parts.values())).hexdigest()[:8]
        self.fingerprint = f"{corpus.fingerprint}-{digest}"
        self.rows_path = work / f"teacher_{corpus.name}_{self.fingerprint}.npz"
        np.savez(self.rows_path, **parts)  # type: ignore[arg-type]
        self.rows: list[Row] = []

    def run(self, contender: Ours | TeacherPeer) -> Iterator[None]:
        """All of one contender, a pause after each process; what goes wrong becomes a row."""
        if reason := contender.missing():
            self._absent(contender, "skipped", reason)
            yield
            return
        wanted = [section for section in self.settings.sections if contender.is_ours or section not in OURS_ONLY]
        timed = [section for section in wanted if section not in ("threads", "tails")]
        # Each corpus of the tails is a process of its own: if one hangs, the others' figures are there.
        jobs = [(timed, 1, "")] if timed else []
        jobs += [(["threads"], 2, "")] if "threads" in wanted else []
        jobs += [(["tails"], 1, name) for name in TAILS] if "tails" in wanted else []
        self._answers_path(contender).unlink(missing_ok=True)  # those of an earlier run
        for sections, cores, tails in jobs:
            try:
                self._job(contender, sections, cores, tails)
            except WorkerFailed as failure:
                self._absent(contender, "failed", f"{', '.join(sections)} {tails}: {failure}; figures so far are kept")
            yield

    def _absent(self, contender: Ours | TeacherPeer, status: str, reason: str) -> None:
        say(f"{self.corpus.name} {contender.name}: {status}, {reason}")
        self.rows.append(Row(self.corpus.name, "contender", contender.name, status=status, note=reason))

    def _answers_path(self, contender: Ours | TeacherPeer) -> Path:
        return self.work / f"answers_{self.corpus.name}_{self.fingerprint}_{contender.name}.npz"

    def _job(self, contender: Ours | TeacherPeer, sections: list[str], cores: int, tails: str) -> None:
        settings = self.settings
        figures_path = self.work / "figures.jsonl"
        figures_path.write_text("")
        try:
            result = run_job(
                contender.name,
                self.corpus,
                self.work,
                phases=[],
                cores=cores,
                worker="bench.teacher.worker",
                timeout_s=TAILS_TIMEOUT_S if tails else 3600,
                work_path=self.work,
                folder=self.work / f"{self.corpus.name}-{self.corpus.fingerprint}-{contender.name}",
                rows_path=self.rows_path,
                answers_path=self._answers_path(contender),
                figures_path=figures_path,
                sections=sections,
                tails=tails,
                runs=settings.runs,
                least_s=settings.least_s,
                budget_s=settings.budget_s,
                sample=settings.sample,
                tail_positions=settings.tail_positions,
                tail_estimators=settings.tail_estimators,
                quick=settings.quick,
            )
            if result.get("build_s") is not None:
                say(f"{self.corpus.name} {contender.name}: built in {result['build_s']:.1f} s")
        finally:
            for line in figures_path.read_text().split("\n")[:-1]:  # whole lines only
                self._add(contender, json.loads(line))

    def _add(self, contender: Ours | TeacherPeer, found: dict[str, Any]) -> None:
        fields: dict[str, Any] = {
            "size": self.corpus.name,
            "section": found["section"],
            "who": contender.name,
            "slice": found.get("name", found["label"]),
            "fingerprint": self.fingerprint,
            "note": contender.notes.get(found["section"], ""),
        }
        if "tail" in found:
            tail = found["tail"]
            parts = (
                f"p50 {tail['p50_us']:.2f}, p99 {tail['p99_us']:.1f}, max {tail['max_us']:.1f} µs",
                f"a call for all copies: {tail['call_us']:.0f} µs, at first up to {tail['first_us']:.0f} more",
                f"{tail['asked']} asked; the slowest matches {tail['match_len']} tokens, {tail['count']:,} times",
            )
            note = "; ".join(parts)
            row = Row.of([tail["max_us"] / tail["p50_us"]], **{**fields, "note": note, "details": tail})
        elif "two" in found:
            values = [rate for rate, _ in found["two"]]
            pairs = zip(found["one"], found["two"], strict=True)
            speedup = statistics.median(second / first for (first, _), (second, _) in pairs)
            details = {"speedup": speedup, "one": found["one"], "cpu_share": min(share for _, share in found["two"])}
            row = Row.of(values, **{**fields, "cores": 2, "note": f"{speedup:.2f} × one thread", "details": details})
        else:
            row = Row.of([rate for rate, _ in found["rates"]], **fields)
            share = min(share for _, share in found["rates"])
            facts = found.get("facts", {})
            per_cpu_s = statistics.median(rate / max(share, 1e-9) for rate, share in found["rates"])
            row.details = {"cpu_share": share, "per_cpu_s": per_cpu_s, **facts}
            busy = f"had {share:.0%} of a core: {per_cpu_s:,.0f} a second of CPU time"
            notes = [row.note, *(f"{key.replace('_', ' ')} {value:.3g}" for key, value in facts.items())]
            row.note = "; ".join(filter(None, [*notes, busy if share < 0.92 else ""]))
            if "judged" in found:
                row.details["judged"] = {"oracle": found["judged"]}
                if found["wrong"]:
                    row.status, row.note = "void", f"oracle: {found['judged']}; {row.note}"
        self.rows.append(row)

    def judge(self, peers: Sequence[TeacherPeer]) -> None:
        """Ours against every peer that left answers; both are void where they differ."""
        ours = self._load(Ours())
        for peer in peers:
            theirs = self._load(peer)
            for section in KENLM_SECTIONS:
                if f"log10/{section}" in ours and "log10" in theirs:
                    apart = np.abs(ours[f"log10/{section}"] - theirs["log10"])
                    found = Comparison(compared=apart.size)
                    if apart.max() > LOG10:
                        found.differs(f"log10 of token {int(apart.argmax())} is {apart.max():.3g} apart")
                    self._verdict(section, "modified-kneser-ney 4", peer, found)
            if "infinity/match_len" in ours and "infinity/match_len" in theirs:
                mine, other = (
                    Answers(**{part: x[f"infinity/{part}"] for part in Answers._fields}) for x in (ours, theirs)
                )
                found = compare("continuations", mine, other, cap=peer.context_cap, exact_up_to=peer.exact_up_to)
                for section in (INFINITY, "score"):
                    self._verdict(section, "mle", peer, found)

    def _load(self, contender: Ours | TeacherPeer) -> dict[str, np.ndarray]:
        path = self._answers_path(contender)
        if not path.exists():
            return {}
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}

    def _verdict(self, section: str, label: str, peer: TeacherPeer, found: Comparison) -> None:
        for row in self.rows:
            if row.section != section or not row.slice.startswith(label) or row.who not in (peer.name, Ours.name):
                continue
            row.details.setdefault("judged", {})[Ours.name if row.who == peer.name else peer.name] = str(found)
            if found.differing:
                row.status, row.note = "void", f"{row.note}; {peer.name}: {found}"
                say(f"{row.size} {row.who}: {section}, {row.slice} is void: {peer.name} {found}")
