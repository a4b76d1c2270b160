"""One training of a study: trained, measured, told as a row."""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import transformers

from corpus_teacher.data import peak_memory_bytes
from corpus_teacher.data.opening import open_index
from corpus_teacher.provenance import commit, machine, versions
from corpus_teacher.study.counts import fitted_weights, kept_counts, reference_nats, summarize_mixture
from corpus_teacher.study.data import StudyData
from corpus_teacher.study.metrics import corpus_context, score, summarize
from corpus_teacher.study.plans import MetricPlan, TextPlan
from corpus_teacher.study.probes import extraction, fidelity, induction, novelty
from corpus_teacher.study.row_file import WITH_COUNTS
from corpus_teacher.study.settings import IN_DOMAIN, TUNE, Cell
from corpus_teacher.study.written import written_text
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import TrainingResult, train_student
from corpus_teacher.training.assemble import Parts, assembled
from corpus_teacher.training.model_folder import save_student
from corpus_teacher.training.settings import RunSettings

SAVING = ".saving-"
"""Of the names of folders in students/ that aren't whole yet."""


@dataclass(frozen=True)
class Job:
    """A training, and what is to be told of it; it goes to another process as a pickle.

    Attributes
    ----------
    fingerprint : str
        Of all that decides what comes of it.
    cell, role, seed, learning_rate
        Its place in the study; role is "tune" or "run".
    tuned : dict
        Values of what else is tuned, by "table.key".
    at_end_of_grid : bool
        Whether the learning rate that was chosen is the first or the last of several.
    settings : RunSettings
    config : dict
        The same as tables, free of the study's folder.
    data : StudyData
    metrics : MetricPlan
    domains : tuple of str
    keep : Path, optional
        Where the student goes that other arms learn from.
    writer : Path, optional
        The student that writes what this one reads.
    text : TextPlan
        How it does.
    """

    fingerprint: str
    study: str
    form: str
    cell: Cell
    role: str
    seed: int
    learning_rate: float
    tuned: dict[str, Any]
    at_end_of_grid: bool
    settings: RunSettings
    config: dict[str, Any]
    data: StudyData
    metrics: MetricPlan
    domains: tuple[str, ...]
    keep: Path | None
    writer: Path | None = None
    text: TextPlan = field(default_factory=TextPlan)


def measure(job: Job) -> dict[str, Any]:
    """Train, measure, and tell.

    Returns
    -------
    dict
        A row of rows.jsonl. seconds and cpu_s are of the training with its evaluations; total_s has the measures too;
        teacher_s and loader_s as in `StepClock`; written_s is what the writing of a synthetic text took.
        peak_memory_bytes is of the process in the training, libraries and mapped files included.
    """
    transformers.utils.logging.disable_progress_bar()  # one for each student that is saved
    begin = time.perf_counter()
    started, has_peak = datetime.now(timezone.utc), _reset_peak()
    settings, written_s = job.settings, 0.0
    if job.writer is not None:
        text, written_s = written_text(job.writer, settings, job.data, job.text)
        settings = replace(settings, data=replace(settings.data, train=(str(text),)))
    with tempfile.TemporaryDirectory() as scratch, assembled(replace(settings, out=scratch)) as parts:
        began, cpu_began = time.perf_counter(), time.process_time()
        result = train_parts(replace(settings, out=scratch), parts)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        peak = _peak() if has_peak else peak_memory_bytes()
        if job.keep is not None:
            save_student(parts.student, job.keep, parts.index, parts.tokenizer)
        metrics, references = _metrics(job, parts), _references(job)
        parameters = parts.student.num_parameters()
    return {
        "study": job.study,
        "form": job.form,
        **job.cell._asdict(),
        "seed": job.seed,
        "role": job.role,
        "learning_rate": job.learning_rate,
        "tuned": job.tuned,
        "at_end_of_grid": job.at_end_of_grid,
        "fingerprint": job.fingerprint,
        "config": job.config,
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
        "cpu_s": cpu_s,
        "total_s": time.perf_counter() - begin,
        "teacher_s": result.teacher_s,
        "loader_s": result.loader_s,
        "written_s": written_s,
        "peak_memory_bytes": peak,
        "tokens": result.tokens,
        "steps": result.steps,
        "parameters": parameters,
        "history": [
            {"step": point["step"], "tokens": point["tokens"], "nats": point["held_out_nats"]}
            for point in result.history
        ],
        "logs": result.logs,
        "metrics": metrics,
        "references": references,
        "checks": job.data.checks,
    }


def train_parts(settings: RunSettings, parts: Parts) -> TrainingResult:
    """Train what was assembled."""
    return train_student(
        settings.config(len(parts.train)),
        parts.student,
        parts.train,
        parts.held_out,
        teachers=parts.teachers,
        on_policy=settings.on_policy,
        held_out_bytes=parts.held_out_bytes,
        form=settings.corpus.form if settings.corpus else "flat",
    )


def _metrics(job: Job, parts: Parts) -> dict[str, Any]:
    """The numbers of each domain; for a run that is reported, the probes as well."""
    student, data, plan, length = parts.student, job.settings.data, job.metrics, job.settings.data.length
    told: dict[str, Any] = {}
    with open_index(data.index) as index:
        context = corpus_context(index, plan.context_order)
        scores = {}
        for domain in job.domains:
            held_out, sizes = job.data.held_out(domain)
            scores[domain] = score(student, held_out, context, length=length)
            told[domain] = summarize(scores[domain], held_out.corpus.doc_starts, int(sizes.sum()), index.vocab_size)
        if IN_DOMAIN not in told:
            return told
        if plan.counts:
            told |= _with_counts(job, parts, context, scores)
        if plan.fidelity_tokens:
            teacher = CorpusTeacher(index, leave_out=None, **{"top_k": 256, **plan.teacher})
            held_out, _ = job.data.held_out(IN_DOMAIN)
            told["fidelity"] = fidelity(student, teacher, held_out, length=length, tokens=plan.fidelity_tokens)
        if plan.induction_rows:
            told["induction"] = induction(student, vocab_size=index.vocab_size, length=length, rows=plan.induction_rows)
        if plan.extraction_prompts:
            span = min(plan.extraction_length, length // 2)
            told["extraction"] = extraction(student, parts.train, prompts=plan.extraction_prompts, length=span)
        if plan.samples:
            end = job.data.manifest["end_of_document"]
            told["novelty"] = novelty(student, index, samples=plan.samples, length=length, end_of_document=end)
    return told


def _with_counts(job: Job, parts: Parts, context: Any, scores: dict[str, Any]) -> dict[str, Any]:
    """The student mixed with the counts at inference, on each text; weights are fitted on the tuning documents."""
    folder, plan = Path(job.settings.data.index), job.metrics.counts
    asked = (plan.get("estimator", "modified-kneser-ney"), plan.get("max_order", 5))
    tune, _ = job.data.held_out(TUNE)
    scored = score(parts.student, tune, context, length=job.settings.data.length)
    weights = fitted_weights(scored, kept_counts(folder, context.index, tune, TUNE, *asked))
    told = {}
    for domain, one in scores.items():
        held_out, sizes = job.data.held_out(domain)
        corpus = kept_counts(folder, context.index, held_out, domain, *asked)
        starts, size = held_out.corpus.doc_starts, int(sizes.sum())
        told[f"{domain}{WITH_COUNTS}"] = summarize_mixture(one, corpus, weights, starts, size)
    return told


def _references(job: Job) -> dict[str, dict[str, float]]:
    """What counts alone reach on the same tokens; nothing for a training that only tunes."""
    if IN_DOMAIN not in job.domains or not job.metrics.counts:
        return {}
    said, folder = job.settings.corpus, Path(job.settings.data.index)
    teacher = None
    if said is not None and said.index in (None, str(folder)) and not said.recall:
        teacher = (said.estimator, said.max_order)
    with open_index(folder) as index:
        texts = {domain: job.data.held_out(domain)[0] for domain in job.domains}
        return reference_nats(folder, index, texts, teacher)


def _reset_peak() -> bool:
    """Begin anew to note the largest memory of this process, which may have done other trainings; Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak() -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found.group(1)) * 1024 if found else peak_memory_bytes()
