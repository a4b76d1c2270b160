"""One contender in a process of its own: `python -m bench.teacher.worker JOB.json` builds, is judged, and is timed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpora import Corpus
from bench.index.contender import Answers
from bench.index.judge import sample_positions
from bench.index.worker import build, pin
from bench.teacher.judge import Judge
from bench.teacher.oracle import NaiveTeacher
from bench.teacher.ours import OURS, THREADED, Ours, askings, tail_askings
from bench.teacher.peers import (
    INFINITY,
    KENLM_SECTIONS,
    PEERS,
    PROVEN_ROWS,
    KenLM,
    TeacherPeer,
    as_kenlm_says,
    with_ends,
)
from bench.teacher.questions import TAILS, Asking, Questions, tail_corpus, windows

WITNESSED = Asking(INFINITY, "mle", None, "held-out")


def stored_texts(path: Path) -> dict[str, Questions]:
    """The rows that the bench chose."""
    with np.load(path) as stored:
        names = dict.fromkeys(key.rsplit("/", 1)[0] for key in stored.files)
        return {name: Questions(stored[f"{name}/tokens"], stored[f"{name}/positions"]) for name in names}


def built(contender: Any, corpus: Corpus, folder: Path, cores: int) -> tuple[Any, float | None]:
    """The opened index, and the seconds of its build, where it was not there yet."""
    took = None
    if not (folder / "built").exists():
        took = build(contender, corpus, folder, cores)[1]["build_s"]
        (folder / "built").touch()
    return contender.open(corpus, folder), took


class Job:
    """What one process does."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.work, self.folder = Path(job["work_path"]), Path(job["folder"])
        paths = {key: Path(value) for key, value in job["corpus"].items() if key.endswith("_path")}
        self.corpus = Corpus(**{**job["corpus"], **paths})
        self.texts = stored_texts(Path(job["rows_path"]))
        self.sections, self.quick = job["sections"], job["quick"]
        self.result: dict[str, Any] = {}
        self.answers: dict[str, np.ndarray] = {}

    def row(self, asking: Asking, **fields: Any) -> None:
        """A figure, for the parent, written at once: the parent takes what there is of a process that it had to end."""
        found = {"section": asking.section, "label": asking.label, **fields}
        with open(self.job["figures_path"], "a") as file:
            file.write(json.dumps(found) + "\n")

    def ours(self) -> None:
        """Ours: judged first, then timed."""
        ours = next(one for one in OURS.values() if one.name == self.job["contender"])
        ours.warm_up(self.work, self.sections if set(self.sections) <= set(ours.sections) else None)
        index, self.result["build_s"] = built(ours, self.corpus, self.folder, 1)
        asked = askings([section for section in self.sections if section in ours.sections])
        if asked:
            naive = NaiveTeacher(self.corpus.tokens, self.corpus.doc_starts, self.corpus.vocab_size)
            judged = Judge(ours, index, naive).compare(asked, self.texts, self.job["sample"])
            del naive
        self._answers_for_peers(ours, index)
        for asking in asked:
            rates, facts = ours.asking_rates(
                index, asking, self.texts[asking.text], runs=self.job["runs"], least_s=self.job["least_s"]
            )
            wrong = judged[asking].differing > 0
            self.row(asking, rates=rates, facts=facts, judged=str(judged[asking]), wrong=wrong)
        if "threads" in self.sections:
            self._threads(ours)
        if "tails" in self.sections:
            self._tails(ours)

    def _answers_for_peers(self, ours: Ours, index: Any) -> None:
        from corpus_index import make_estimator

        held_out = self.texts["held-out"]
        for section in KENLM_SECTIONS & set(self.sections):
            kenlm = make_estimator("modified-kneser-ney", 4, convention="kenlm").fit(index)
            part = held_out.part(0, PROVEN_ROWS)
            if section == "score":
                scores = index.next_probabilities(part.input_ids, part.next_ids, estimator=kenlm)
            else:
                scores = index.scorer(kenlm).probabilities(part.tokens)[:, 1:].reshape(-1)
            self.answers[f"log10/{section}"] = as_kenlm_says(index, scores.reshape(-1), part.next_ids.reshape(-1))
        if INFINITY in self.sections:
            entries = []
            for row, t in sample_positions(held_out.input_ids.shape, "continuations").tolist():
                one = Questions(held_out.tokens[row : row + 1, : t + 2], held_out.positions[row : row + 1])
                targets = ours.ask(index, WITNESSED, one, only_last=True, top_k=self.corpus.vocab_size, shortlist=None)
                count = int(targets.context_count[0])
                counts = np.rint(targets.probs * np.float64(count)).astype(np.int64)
                entries.append((int(targets.match_len[0]), count, 0, targets.token_ids, counts))
            self.answers |= {f"infinity/{part}": x for part, x in Answers.of(entries)._asdict().items()}

    def _threads(self, ours: Ours) -> None:
        for form, (name, max_order) in THREADED:
            for objects in (1, 2):
                asking = Asking(form, name, max_order, "held-out")
                questions = self.texts["held-out"]
                one, two = ours.thread_askings(
                    self.folder / "index", asking, questions, objects=objects, runs=self.job["runs"]
                )
                label = f"{form}, {name} {max_order}, {objects} opened"
                self.row(asking._replace(section="threads"), one=one, two=two, name=label)

    def _tails(self, ours: Ours) -> None:
        name = self.job["tails"]
        corpus = tail_corpus(name, self.corpus, self.work, quick=self.quick)
        folder = self.folder if name == TAILS[0] else self.work / f"tails_{self.corpus.name}_{corpus.name}"
        index, _ = built(ours, corpus, folder, 1)
        questions = self.texts.get(name)
        if questions is None:
            width = self.texts["held-out"].input_ids.shape[1]
            questions = windows(corpus.tokens, corpus.doc_starts, num=16, length=width, seed=0)
        for asking in tail_askings(name, self.job["tail_estimators"]):
            found, place = ours.asking_tail(
                index, asking, questions, num=self.job["tail_positions"], budget_s=self.job["budget_s"] / 2
            )
            tail = {**found._asdict(), **place}
            self.row(asking._replace(section="tails"), name=f"{asking.section}, {asking.label}", tail=tail)

    def peer(self, peer: TeacherPeer) -> None:
        """A peer: its answers, and its figures."""
        index, self.result["build_s"] = built(peer, self.corpus, self.folder, self.job["cores"])
        held_out = self.texts["held-out"]
        if isinstance(peer, KenLM):
            if KENLM_SECTIONS & set(self.sections):
                self.answers["log10"] = peer.log10(index, held_out.tokens[:PROVEN_ROWS])
        elif INFINITY in self.sections:
            sample = sample_positions(held_out.input_ids.shape, "continuations")
            answers = peer.answers("continuations", index, held_out.input_ids, sample)
            answers = with_ends(answers, self.corpus.vocab_size - 1)
            self.answers |= {f"infinity/{part}": x for part, x in answers._asdict().items()}
        for asking in askings(self.sections):
            if peer.offers(asking):
                rates = peer.asking_rates(
                    index, asking, self.texts[asking.text], runs=self.job["runs"], budget_s=self.job["budget_s"]
                )
                self.row(asking, rates=rates)


def main(job_path: Path) -> None:
    """Does what the job says."""
    content = json.loads(job_path.read_text())
    pin(content["cores"])
    job = Job(content)
    peer = next((peer for peer in PEERS if peer.name == content["contender"]), None)
    if peer is None:
        job.ours()
    else:
        job.peer(peer)
    if job.answers:
        np.savez_compressed(content["answers_path"], **job.answers)  # type: ignore[arg-type]
    Path(content["result_path"]).write_text(json.dumps(job.result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
