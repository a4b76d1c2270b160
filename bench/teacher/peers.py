"""The peers: what each can say of smoothed distributions, of the next token's probability and of the ∞-gram.

None has all three. The figures stand beside ours of the same label; what differs in kind is said in their notes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import time
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.corpora import Corpus
from bench.index import peers
from bench.index.contender import Answers, Contender, Rate, random_contexts, timed_runs
from bench.teacher.questions import Asking, Questions

INFINITY = "infinity"
KENLM_ORDER = 5
KENLM_SECTIONS = {"score", "texts"}
"""Where its log10 is compared with ours."""
PROVEN_ROWS = 32
"""Rows of held-out text whose tokens are all scored by KenLM and by us."""


def with_ends(answers: Answers, end_token: int) -> Answers:
    """A peer's answers, its separators turned into the end token that stands in their place in ours, the highest id."""
    entries = []
    for i in range(len(answers.match_len)):
        part = slice(answers.offsets[i], answers.offsets[i + 1])
        ids, counts, ends = answers.token_ids[part], answers.token_counts[part], int(answers.separators[i])
        if ends:
            ids, counts = np.append(ids, end_token), np.append(counts, ends)
        entries.append((int(answers.match_len[i]), int(answers.counts[i]), 0, ids, counts))
    return Answers.of(entries)


class TeacherPeer(Contender):
    """A peer that answers some askings."""

    def offers(self, asking: Asking) -> bool:
        """Whether it has a figure for this asking."""
        raise NotImplementedError

    def asking_rates(
        self, index: Any, asking: Asking, questions: Questions, *, runs: int, budget_s: float
    ) -> list[Rate]:
        """Timed runs."""
        raise NotImplementedError


class Tokengrams(peers.Tokengrams, TeacherPeer):
    """tokengrams: smoothed probabilities of a four-token context; the ∞-gram by bisection."""

    notes: ClassVar[dict[str, str]] = {
        "flat": "absolute discounting over raw counts, dense over V",
        INFINITY: "bisection over `contains`, contexts of 64",
    }

    def offers(self, asking: Asking) -> bool:
        """See TeacherPeer."""
        wanted = (("flat", "modified-kneser-ney", 4), (INFINITY, "mle", None))
        return asking[:3] in wanted and asking.leave_out is None

    def asking_rates(
        self, index: Any, asking: Asking, questions: Questions, *, runs: int, budget_s: float
    ) -> list[Rate]:
        """See TeacherPeer."""
        if asking.section == INFINITY:
            return self.rates("continuations", index, questions.input_ids, runs=runs, budget_s=budget_s)
        contexts = random_contexts(questions.input_ids, shortest=4, longest=4)

        def step(context: list[int]) -> int:
            np.array(index.get_smoothed_probs(context))
            return 1

        return timed_runs(step, contexts, runs=runs, budget_s=budget_s)


class InfiniGram(peers.InfiniGram, TeacherPeer):
    """infini-gram: the ∞-gram's distribution, and its probability of the next token."""

    notes: ClassVar[dict[str, str]] = {
        INFINITY: "contexts of 64, approximate above 1,000 occurrences",
        "score": "contexts of 64",
    }

    def offers(self, asking: Asking) -> bool:
        """See TeacherPeer."""
        return asking[:3] in ((INFINITY, "mle", None), ("score", "mle", None)) and asking.leave_out is None

    def asking_rates(
        self, index: Any, asking: Asking, questions: Questions, *, runs: int, budget_s: float
    ) -> list[Rate]:
        """See TeacherPeer."""
        if asking.section == INFINITY:
            return self.rates("continuations", index, questions.input_ids, runs=runs, budget_s=budget_s)
        contexts = random_contexts(questions.tokens, shortest=2, longest=peers.CAP + 1)

        def step(context: list[int]) -> int:
            index.infgram_prob(prompt_ids=context[:-1], cont_id=context[-1])
            return 1

        return timed_runs(step, contexts, runs=runs, budget_s=budget_s)


def as_kenlm_says(index: Any, probabilities: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """log10 of what an index says of tokens, for comparison: to KenLM all that the corpus lacks are one word."""
    lacking = index.symbol_counts == 0
    return np.log10(np.where(lacking[ids], probabilities * lacking.sum(), probabilities))


def lines(tokens: np.ndarray) -> str:
    """Rows of tokens as KenLM reads them: words of digits."""
    return "".join(" ".join(map(str, row)) + "\n" for row in tokens.tolist())


class KenLM(TeacherPeer):
    """KenLM: modified Kneser–Ney of order 5, probing; tokens are words of digits, a document a line."""

    name = distribution = module = "kenlm"
    sections = ("score", "texts")
    notes: ClassVar[dict[str, str]] = {
        "score": "its program `query` over the rows, less its time for none",
        "texts": "its program `query` over the rows, less its time for none",
        "flat": "BaseScore from Python for each of V",
    }

    @staticmethod
    def program(name: str) -> Path | None:
        """lmplz, named by LMPLZ or on the PATH, or a program beside it."""
        found = os.environ.get("LMPLZ") or shutil.which("lmplz")
        path = Path(found).with_name(name) if found else None
        return path if path is not None and path.exists() else None

    def missing(self) -> str | None:
        """See Contender."""
        absent = [name for name in ("lmplz", "build_binary", "query") if self.program(name) is None]
        return f"{', '.join(absent)} not there: build KenLM and name its lmplz in LMPLZ" if absent else None

    def build(self, corpus: Corpus, folder: Path, cores: int) -> None:
        """See Contender; the end token is KenLM's own </s>."""
        tokens, starts = corpus.tokens, corpus.doc_starts.tolist()
        with open(folder / "text", "w") as file:
            for start, end in pairwise(starts):
                file.write(" ".join(map(str, tokens[start : end - 1].tolist())) + "\n")
        options = ["-o", str(KENLM_ORDER), "-S", "50%", "-T", str(folder), "--discount_fallback"]
        with open(folder / "text") as text, open(folder / "arpa", "w") as arpa:
            subprocess.run([str(self.program("lmplz")), *options], stdin=text, stdout=arpa, check=True)
        binary = ["-T", str(folder), "probing", str(folder / "arpa"), str(folder / "probing")]
        subprocess.run([str(self.program("build_binary")), *binary], check=True)
        for name in ("text", "arpa"):
            (folder / name).unlink()

    def open(self, corpus: Corpus, folder: Path) -> Any:
        """See Contender: `query` takes the file, and so does the Python module, where it is there."""
        return folder / "probing", corpus

    def offers(self, asking: Asking) -> bool:
        """See TeacherPeer."""
        python = importlib.util.find_spec("kenlm") is not None
        sections = ("score", "texts", "flat") if python else ("score", "texts")
        same = (asking.estimator, asking.max_order) == ("modified-kneser-ney", KENLM_ORDER - 1)
        return same and asking.section in sections and asking.leave_out is None

    def log10(self, index: Any, tokens: np.ndarray) -> np.ndarray:
        """Of every token of rows (R, T + 1) but the first of each: its log10 probability, flat."""
        command = self._command(index, "word")
        asked = subprocess.run(command, input=lines(tokens), capture_output=True, text=True, check=True)
        printed = re.findall(r"=\d+ \d+ (\S+)", asked.stdout)
        return np.array(printed, np.float64).reshape(tokens.shape)[:, 1:].reshape(-1)

    def asking_rates(
        self, index: Any, asking: Asking, questions: Questions, *, runs: int, budget_s: float
    ) -> list[Rate]:
        """See TeacherPeer."""
        if asking.section == "flat":
            return self._python_rates(index, questions, runs=runs, budget_s=budget_s)
        # Again and again, long enough that the difference to no rows at all is no noise.
        tokens = np.tile(questions.tokens, (max(1, 2_000_000 // questions.tokens.size), 1))
        text = lines(tokens).encode()
        rates = []
        for _ in range(runs):
            seconds, cpu_s = self.seconds(index, text)
            rates.append(Rate(tokens.size / seconds, min(1.0, cpu_s / seconds)))
        return rates

    def _command(self, index: Any, level: str) -> list[str]:
        return [str(self.program("query")), "-n", "-v", level, str(index[0])]

    def seconds(self, index: Any, text: bytes) -> tuple[float, float]:
        """What `query` takes for a text, less what it takes for none, of the clock and of the processor."""
        (loading, loading_cpu), (took, took_cpu) = self._seconds(index, b""), self._seconds(index, text)
        return max(1e-9, took - loading), took_cpu - loading_cpu

    def _seconds(self, index: Any, text: bytes) -> tuple[float, float]:
        """What one run of `query` takes, of the clock and of the processor."""
        started, before = time.perf_counter(), os.times()
        subprocess.run(self._command(index, "summary"), input=text, capture_output=True, check=True)
        took, after = time.perf_counter() - started, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return took, cpu

    @staticmethod
    def _python_rates(index: Any, questions: Questions, *, runs: int, budget_s: float) -> list[Rate]:
        import kenlm

        model = kenlm.Model(str(index[0]))
        words = [str(token) for token in range(index[1].vocab_size)]
        states, after = [], kenlm.State()
        for row in questions.input_ids[:4].tolist():
            state = kenlm.State()
            model.NullContextWrite(state)
            for token in row[:64]:
                following = kenlm.State()
                model.BaseScore(state, str(token), following)
                states.append(state := following)

        def step(state: Any) -> int:
            np.array([model.BaseScore(state, word, after) for word in words])
            return 1

        return timed_runs(step, cycle(states), runs=runs, budget_s=budget_s)


PEERS: tuple[TeacherPeer, ...] = (Tokengrams(), InfiniGram(), KenLM())
