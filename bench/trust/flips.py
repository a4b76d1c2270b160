"""Bits of an index's arrays flipped, one flip at a time; the index opened unchecked, and asked all kinds of questions.

Two of three flips change one bit, the third turns eight bytes into noise. Each is done in the files of a small index.
Estimators are fitted before that, and asked with their kept fits: a fit of a changed index may be refused, and then the
kernels behind it would never run. A
child process opens it with `check="never"`, asks, compares the answers with those before, and flips the bit back. A
crash kills the child only; the parent counts it, flips the bit back and starts another child. Kernels are compiled
once, before the first fork, and the files lie in memory, so a flip costs some 20 ms: nearly all of it is questions.
Two of the seven estimators are asked after a flip, the next two after the next flip of the same file; other questions
are asked each time.
"""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import io
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from corpus_index import (
    CorpusIndex,
    CorpusIndexError,
    Estimator,
    build_index,
    draw_tokens,
    fit_recall,
    make_estimator,
    near_duplicates,
    write_arpa,
)
from corpus_index.core.chains import counts_of_chains

from bench.trust.fuzzing import in_memory

HANG_S = 10
"""CPU seconds of a flip; one that waits takes none, and ends after ten times as many by the clock."""

FITTED = ("witten-bell", "kneser-ney", "modified-kneser-ney", "pitman-yor", "katz", "absolute-discounting", "ppm-c")
"""Estimators that are fitted before bits are flipped."""

Kept = Mapping[str, Estimator]
OUTCOMES = ("right", "refused", "wrong", "exception", "crash", "hang")
PART = 1_000
_FLIPS_PER_CHILD = 1_000
_AT_A_TIME = 2  # estimators that are asked after a flip


class Flip(NamedTuple):
    """Bytes of a file to be changed: which file, from where on, and what they are xor-ed with, in hex."""

    file: str
    place: int
    change: str


class Outcome(NamedTuple):
    """What became of a flip: one of OUTCOMES, and a word more: the type of an error, the signal of a crash."""

    flip: Flip
    kind: str
    more: str


def small_corpus(seed: int, *, wide: bool) -> dict[str, Any]:
    """Some 20,000 tokens in documents, of words that repeat, with copied passages, a run, and short documents.

    wide: ids beyond 65,536, so that the index keeps an alphabet.
    """
    rng = np.random.default_rng(seed)
    words = 1 + (rng.zipf(1.3, 16_000) % 900)
    following = 1 + rng.permutation(900)
    likely = rng.random(words.size) < 0.6
    for place in np.flatnonzero(likely[1:]) + 1:  # many words have a usual next one, so that long contexts repeat
        words[place] = following[words[place - 1] - 1]
    passage = words[100:700]
    parts = [*np.split(words, np.sort(rng.choice(words.size, 40, replace=False))), passage, passage[:300]]
    parts += [np.full(400, 5), np.array([7]), words[:2]]
    documents = [np.append(part, 0) for part in parts if part.size]
    tokens = np.concatenate(documents)
    options: dict[str, Any] = {"doc_starts": np.cumsum([0, *map(len, documents)]), "end_of_document": 0}
    if wide:
        return {"tokens": (tokens * 97).astype(np.uint32), "vocab_size": 200_000, **options}
    return {"tokens": tokens.astype(np.uint16), "vocab_size": 1_000, **options}


def fits_of(index: CorpusIndex, names: Sequence[str] = FITTED) -> dict[str, Estimator]:
    """Estimators fitted on an index that is whole."""
    return {name: make_estimator(name, max_order=6).fit(index) for name in names}


def questions(
    index: CorpusIndex, ids: np.ndarray, places: np.ndarray, kept: Kept, deep: bool = False
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The battery: name and question, of everything that an index answers; (B, T + 1) ids, and where rows begin.

    kept: estimators, fitted before. deep: also what reads the whole index, and takes ten times as long: fits, and the
    model as an ARPA file.
    """
    given, labels = ids[:, :-1], ids[:, 1:]
    yield "count", lambda: [index.count(row[:3]) for row in ids]
    yield "positions", lambda: [index.positions(row[2:5]) for row in ids]
    yield "next_tokens", lambda: [index.next_tokens(row[:6]) for row in ids]
    yield "documents", lambda: [index.documents_of(row[:4], limit=3) for row in ids]
    yield "match", lambda: (index.match(given), index.match(given, max_order=3, min_count=2))
    yield "batch", lambda: index.next_tokens_batch(given)
    for name, made in kept.items():
        yield f"flat {name}", lambda made=made: index.smoothed_targets(given[:3], estimator=made)
        yield (
            f"without the document {name}",
            lambda made=made: index.smoothed_targets(
                given[3:], labels[3:], estimator=made, leave_out="document", positions=places[3:]
            ),
        )
        yield f"score {name}", lambda made=made: index.next_probabilities(given, labels, estimator=made)
        if not made.excludes:
            yield (
                f"mixed {name}",
                lambda made=made: index.mixed_targets(given, labels, estimator=made, leave_out="self"),
            )
    yield "sampled", lambda: index.sampled_targets(given[:2], draws=8, seed=1)
    yield "scores", lambda: index.backoff_scores(given, labels, leave_out="document", positions=places)
    yield "explain", lambda: index.explain(ids[0, :8])
    yield "draw", lambda: draw_tokens(index, [row.tolist() for row in given], np.random.default_rng(0))
    yield (
        "counts",
        lambda: counts_of_chains(
            index, given[3:5, :8], labels[3:5, :8], left=True, leave_out="document", positions=places[3:5]
        ),
    )
    if deep:
        for name in (
            "auto",
            "pitman-yor",
            "dirichlet",
            "modified-kneser-ney",
            "jelinek-mercer",
            "absolute-discounting",
            "katz",
        ):
            yield name, lambda name=name: index.next_probabilities(given, labels, estimator=name, leave_out="self")
        yield "recall", lambda: fit_recall(index, "witten-bell").weights
        yield "arpa", lambda: _arpa(index)
    yield "near_duplicates", lambda: near_duplicates(index, [4, 16], top_length=8)


def _arpa(index: CorpusIndex) -> str:
    file = io.BytesIO()
    write_arpa(index, make_estimator("kneser-ney", max_order=2).fit(index), file)
    return hashlib.sha256(file.getvalue()).hexdigest()


def rows_of(tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the corpus, the last two with other tokens in them, and where they begin."""
    places = np.sort(rng.choice(tokens.size - 40, 6, replace=False))
    rows = np.stack([tokens[place : place + 25] for place in places]).astype(np.int64)
    rows[-2:, ::5] = tokens[rng.integers(tokens.size, size=(2, 5))]
    return rows, places.astype(np.int64)


def some_of(kept: Kept, turn: int) -> Kept:
    """The estimators whose turn it is; after as many turns as there are estimators each was asked as often."""
    names = list(kept)
    return {name: kept[name] for name in {names[(turn + k) % len(names)] for k in range(_AT_A_TIME)}} if names else {}


def ask(
    path: Path, ids: np.ndarray, places: np.ndarray, kept: Kept, deep: bool = False
) -> tuple[str, str, dict[str, Any]]:
    """The outcome of all questions to an unchecked index: kind, a word more, and each answer as plain values.

    A refusal of one question doesn't end the battery; the worst of all is the outcome.
    """
    answers: dict[str, Any] = {}
    worst, more = "right", ""
    try:
        with CorpusIndex.open(path, check="never") as index:
            for name, question in questions(index, ids, places, kept, deep):
                try:
                    answers[name] = plain(question())
                except CorpusIndexError as error:
                    worst, more = ("refused", type(error).__name__) if worst == "right" else (worst, more)
                except Exception as error:
                    worst, more = "exception", f"{name}: {type(error).__name__}: {str(error)[:60]}"
    except CorpusIndexError as error:
        return "refused", type(error).__name__, {}
    except Exception as error:
        return "exception", f"open: {type(error).__name__}: {str(error)[:60]}", {}
    return worst, more, answers


def plain(answer: Any) -> Any:
    """An answer as plain bytes and numbers."""
    if isinstance(answer, np.ndarray):
        return answer.dtype.str, answer.shape, answer.tobytes()
    if isinstance(answer, (list, tuple)):
        return [plain(part) for part in answer]
    if isinstance(answer, (bool, int, float, str)):
        return repr(answer)
    if hasattr(answer, "__dict__"):
        return plain(list(vars(answer).values()))
    return repr(answer)


def flips_of(path: Path, count: int, seed: int) -> list[Flip]:
    """What to change, as often in each array, at places drawn at random."""
    rng = np.random.default_rng(seed)
    files = sorted(file for file in path.iterdir() if file.suffix == ".bin" and file.stat().st_size)
    flips = []
    for number in range(count):
        file = files[number % len(files)]
        change = rng.bytes(8) if number // len(files) % 3 == 2 else bytes([1 << int(rng.integers(8))])
        place = int(rng.integers(max(1, file.stat().st_size - len(change) + 1)))
        flips.append(Flip(file.name, place, change.hex()))
    return flips


def do_flip(path: Path, flip: Flip) -> None:
    """Flip the bit; a second time takes it back."""
    with (path / flip.file).open("r+b") as file:
        file.seek(flip.place)
        change = bytes.fromhex(flip.change)
        found = file.read(len(change))
        file.seek(flip.place)
        file.write(bytes(a ^ b for a, b in zip(found, change, strict=False)))


def run_flips(
    path: Path,
    flips: list[Flip],
    *,
    seed: int = 0,
    hang_s: float = HANG_S,
    deep: bool = False,
    fitted: Sequence[str] = FITTED,
) -> list[Outcome]:
    """The outcome of each flip, asked in forked children."""
    with CorpusIndex.open(path) as index:
        ids, places = rows_of(index.tokens, np.random.default_rng(seed))
        kept = fits_of(index, fitted)
    kind, more, good = ask(path, ids, places, kept, deep)
    assert kind == "right", more
    outcomes: list[Outcome] = []
    while len(outcomes) < len(flips):
        part = flips[len(outcomes) : len(outcomes) + _FLIPS_PER_CHILD]
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receiver)
            _in_child(path, part, len(outcomes), sender, ids, places, kept, good, hang_s, deep)
        os.close(sender)
        with os.fdopen(receiver) as lines:
            for line in lines:
                kind, more = line.rstrip("\n").split("\t")
                outcomes.append(Outcome(flips[len(outcomes)], kind, more))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            flip, number = flips[len(outcomes)], os.WTERMSIG(status)
            do_flip(path, flip)
            kind = "hang" if number in (signal.SIGALRM, signal.SIGPROF) else "crash"
            outcomes.append(Outcome(flip, kind, signal.Signals(number).name))
    return outcomes


def _in_child(
    path: Path,
    flips: list[Flip],
    first: int,
    sender: int,
    ids: np.ndarray,
    places: np.ndarray,
    kept: Kept,
    good: dict[str, Any],
    hang_s: float,
    deep: bool,
) -> None:
    """Flip, ask, flip back; a line for each; never returns."""
    files = len(set(flip.file for flip in flips))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.disable()
    with open(os.devnull, "wb") as silence:
        os.dup2(silence.fileno(), 2)  # what a dying heap says
    np.seterr(all="ignore")
    gc.freeze()
    gc.disable()
    for number, flip in enumerate(flips, first):
        if number % 50 == 0:
            gc.collect()
        do_flip(path, flip)
        signal.setitimer(signal.ITIMER_PROF, hang_s)
        signal.setitimer(signal.ITIMER_REAL, 10 * hang_s)
        kind, more, answers = ask(path, ids, places, some_of(kept, number // files), deep)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        do_flip(path, flip)
        wrong = [name for name in answers if answers[name] != good[name]]
        if kind in ("right", "refused") and wrong:
            kind, more = "wrong", wrong[0]
        more = more.replace("\n", " ").replace("\t", " ")
        os.write(sender, f"{kind}\t{more}\n".encode())
    os._exit(0)


def table_of(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Outcomes by file."""
    table: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        table.setdefault(outcome.flip.file, Counter())[outcome.kind] += 1
    return {file: {kind: counts[kind] for kind in OUTCOMES} for file, counts in sorted(table.items())}


def campaign(
    count: int,
    seed: int = 0,
    *,
    deep: bool = False,
    fitted: Sequence[str] = FITTED,
    before: dict[str, Any] | None = None,
    told: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Flips in parts of `PART`, each in indexes of their own; counts, and what wasn't to be.

    before: what was found earlier: it is gone on with, to `count` in all, with the seeds that follow. told: takes all
    that is found so far, after each part.
    """
    found = before
    while found is None or found["tried"] < count:
        left = count - (0 if found is None else found["tried"])
        part = part_of(min(PART, left), seed if found is None else max(found["seeds"]) + 1, deep=deep, fitted=fitted)
        found = part if found is None else joined([found, part])
        told(found)
    return found


def part_of(count: int, seed: int, *, deep: bool = False, fitted: Sequence[str] = FITTED) -> dict[str, Any]:
    """Half of the flips in an index of 16-bit tokens, half in one with an alphabet, of a corpus drawn by the seed."""
    outcomes: list[Outcome] = []
    for wide in (False, True):
        with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
            path = Path(folder) / "index"
            build_index(path=path, **small_corpus(seed, wide=wide)).close()
            outcomes += run_flips(
                path, flips_of(path, (count + wide) // 2, seed + wide), seed=seed, deep=deep, fitted=fitted
            )
    total = Counter(outcome.kind for outcome in outcomes)
    bad = [outcome for outcome in outcomes if outcome.kind in ("crash", "hang", "exception")]
    return {
        "tried": len(outcomes),
        "seeds": [seed],
        "deep": deep,
        **{kind: total[kind] for kind in OUTCOMES},
        "by_file": table_of(outcomes),
        "worst": [[*outcome.flip, outcome.kind, outcome.more] for outcome in bad[:100]],
    }


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The parts of a campaign as one."""
    by_file: dict[str, Counter[str]] = {}
    for part in parts:
        for file, counts in part["by_file"].items():
            by_file.setdefault(file, Counter()).update(counts)
    return {
        "tried": sum(part["tried"] for part in parts),
        "seeds": [seed for part in parts for seed in part["seeds"]],
        "deep": parts[0]["deep"],
        **{kind: sum(part[kind] for part in parts) for kind in OUTCOMES},
        "by_file": {file: {kind: counts[kind] for kind in OUTCOMES} for file, counts in sorted(by_file.items())},
        "worst": [flip for part in parts for flip in part["worst"]][:100],
    }
