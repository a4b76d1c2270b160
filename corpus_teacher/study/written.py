"""The text that a finished student writes for another one to read."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpus_teacher.data import TokenWindows
from corpus_teacher.data.opening import open_index
from corpus_teacher.data.tokenizers import token_dtype
from corpus_teacher.files import write_array, write_json
from corpus_teacher.on_policy import continue_rows
from corpus_teacher.study.data import StudyData
from corpus_teacher.study.plans import TextPlan
from corpus_teacher.training import load_student
from corpus_teacher.training.settings import RunSettings

_ROWS = 64  # that are written at a time


def written_text(folder: Path, settings: RunSettings, data: StudyData, plan: TextPlan) -> tuple[Path, float]:
    """A text of windows that a student writes, as long as what a training reads; kept beside the student.

    Every window is one draw, so that no position is farther from its beginning than the student has learnt. What isn't
    drawn, prompts and real windows, is what the training would read otherwise, in its order.

    Parameters
    ----------
    folder : Path
        Of the student.
    settings : RunSettings
        Of the training that reads; its data.index holds the real windows.
    data : StudyData
    plan : TextPlan

    Returns
    -------
    tuple
        The file of tokens, and the seconds that the writing took (whenever that was).
    """
    length = settings.data.length
    rows = settings.training["max_steps"] * settings.tokens_a_step() // length
    name = f"text-{rows}x{length}"
    if plan != TextPlan():
        said = json.dumps([asdict(plan), Path(settings.data.index).name, settings.seed])
        name += "-" + hashlib.sha256(said.encode()).hexdigest()[:12]
    path, told = folder / f"{name}.npy", folder / f"{name}.json"
    if path.is_file() and told.is_file():
        return path, float(json.loads(told.read_text(encoding="utf-8"))["seconds"])
    begin, vocab_size = time.perf_counter(), data.manifest["vocab_size"]
    writer = load_student(folder, vocab_size=vocab_size).eval()
    generator = torch.Generator().manual_seed(settings.seed)
    text = np.empty((rows, length), token_dtype(vocab_size))
    with open_index(settings.data.index) as index:
        windows = TokenWindows(index.tokens, length, seed=settings.seed, doc_starts=index.doc_starts)
        real = round(rows * plan.real_share)
        for first in range(0, rows, _ROWS):
            part = range(first, min(first + _ROWS, rows))
            read = torch.stack([torch.as_tensor(windows[row % len(windows)]["input_ids"]) for row in part])
            drawn = _drawn(writer, read, plan, generator, data.manifest["end_of_document"], vocab_size)
            keep = torch.tensor([row < real for row in part])
            text[part.start : part.stop] = torch.where(keep[:, None], read, drawn).numpy()
    seconds = time.perf_counter() - begin
    write_array(path, text.reshape(-1))  # another process may write the very same
    write_json(told, {"seconds": seconds}, indent=None)
    return path, seconds


def _drawn(
    writer: Any, read: Tensor, plan: TextPlan, generator: torch.Generator, end_of_document: int, vocab_size: int
) -> Tensor:
    """The best of several continuations of each row's prompt, (B, T)."""
    prompt_len = max(1, plan.prompt_tokens)
    begun = read if plan.prompt_tokens else torch.full_like(read, end_of_document)
    several = [
        continue_rows(
            writer, begun, prompt_len=prompt_len, temperature=plan.temperature, top_k=plan.top_k, top_p=plan.top_p,
            generator=generator, vocab_size=vocab_size,
        )
        for _ in range(plan.best_of)
    ]  # fmt: skip
    if plan.best_of == 1:
        return several[0]
    best = torch.stack([_log_likelihood(writer, rows, prompt_len, vocab_size) for rows in several]).argmax(0)
    return torch.stack(several)[best, torch.arange(len(read))]


@torch.no_grad()
def _log_likelihood(writer: Any, rows: Tensor, prompt_len: int, vocab_size: int) -> Tensor:
    """Of each row behind its prompt, in nats, (B,)."""
    logits = writer(input_ids=rows).logits[:, prompt_len - 1 : -1, :vocab_size].float()
    drawn = rows[:, prompt_len:, None]
    return (logits.gather(-1, drawn)[..., 0] - logits.logsumexp(-1)).sum(-1)
