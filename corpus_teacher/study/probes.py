"""What a student has become, beside its held-out loss.

How near it is to the corpus teacher, whether it copies in context, what it has by heart, how new its own text is. Each
probe draws by seeds of its own, the same for every arm.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from corpus_teacher.data.held_out import HeldOut
from corpus_teacher.losses import forward_kl
from corpus_teacher.on_policy import continue_rows
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training.run import Windows

NGRAMS = (2, 4, 8, 13)
"""Lengths whose novelty is told."""


@torch.no_grad()
def fidelity(
    student: transformers.PreTrainedModel,
    teacher: CorpusTeacher,
    held_out: HeldOut,
    *,
    length: int,
    tokens: int,
    rows: int = 16,
) -> dict[str, float]:
    """Nearness of a student to the corpus teacher on held-out text, which is another thing than a good loss.

    Returns
    -------
    dict
        kl_nats, the mean KL(teacher ‖ student); top1, the share of positions where both think the same token likeliest;
        teacher_nats, the teacher's own loss to the data; tokens, how many.
    """
    student.eval()
    sums = torch.zeros(4, dtype=torch.float64)
    batches = held_out.batches(length=length, rows=rows, overlap=length // 4)
    for batch in islice(batches, max(1, tokens // (rows * length))):
        targets = teacher(batch.input_ids, batch.next_ids, starts_document=batch.starts_document)
        logits = student(input_ids=torch.from_numpy(batch.input_ids).to(student.device)).logits.float().cpu()
        counted = torch.from_numpy(batch.next_ids >= 0).reshape(-1)
        kl = forward_kl(logits, targets, reduction="none").reshape(-1)[counted]
        labels = torch.from_numpy(batch.next_ids).reshape(-1)
        nats = -targets.probability_of(labels.clamp_min(0))[counted].double().log()
        agree = (likeliest(targets) == logits.reshape(-1, logits.shape[-1]).argmax(1))[counted]
        sums += torch.stack([kl.double().sum(), agree.double().sum(), nats.sum(), counted.double().sum()])
    kl_sum, agreed, nats_sum, number = sums.tolist()
    return {
        "kl_nats": kl_sum / number,
        "top1": agreed / number,
        "teacher_nats": nats_sum / number,
        "tokens": int(number),
    }


def likeliest(targets: SoftTargets) -> Tensor:
    """The token with the largest probability of each target, (Q,) int64; O(pairs + V)."""
    rows, tokens = targets.rows(), targets.token_ids.long()
    explicit = targets.probs + targets.rest[rows] * targets.base[tokens]
    best = torch.zeros_like(targets.rest).scatter_reduce(0, rows, explicit, "amax")
    is_best = explicit == best[rows]
    of_base = int(targets.base.argmax())
    answer = torch.full_like(targets.offsets[1:], of_base)
    return torch.where(
        best > targets.rest * targets.base[of_base], answer.index_put((rows[is_best],), tokens[is_best]), answer
    )


@torch.no_grad()
def induction(
    student: transformers.PreTrainedModel, *, vocab_size: int, length: int, rows: int, seed: int = 0
) -> dict[str, float]:
    """Random tokens, and the same again: does the student copy what it can't know otherwise (Olsson et al. 2022)?

    Returns
    -------
    dict
        nats_first and nats_second (a token of each half, its first token left out), accuracy in the second half.
    """
    student.eval()
    half = length // 2
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, vocab_size, (rows, half))).repeat(1, 2)
    logits = student(input_ids=ids.to(student.device)).logits[:, :-1].float().cpu()
    labels = ids[:, 1:]
    nats = -logits.log_softmax(-1).gather(2, labels[:, :, None])[:, :, 0]
    right = logits.argmax(-1) == labels
    return {
        "nats_first": float(nats[:, : half - 1].mean()),
        "nats_second": float(nats[:, half:].mean()),
        "accuracy": float(right[:, half:].float().mean()),
    }


def extraction(student: transformers.PreTrainedModel, train: Windows, *, prompts: int, length: int) -> dict[str, float]:
    """How much of the training text a student has by heart (Carlini et al. 2023, arXiv 2202.07646).

    It is shown the beginnings of training windows, and goes on greedily.

    Returns
    -------
    dict
        rate, the share of continuations that are verbatim; tokens_right, the mean share of their tokens that are;
        length, of prompt and continuation in tokens.
    """
    chosen = np.linspace(0, len(train) - 1, min(prompts, len(train))).astype(int)
    rows = torch.from_numpy(np.stack([train[int(number)]["input_ids"][: 2 * length] for number in chosen]))
    length = rows.shape[1] // 2
    rows = rows[:, : 2 * length].to(student.device)
    written = continue_rows(student, rows, prompt_len=length, top_k=1, generator=torch.Generator().manual_seed(0))
    right = (written == rows)[:, length:]
    return {
        "rate": float(right.all(1).float().mean()),
        "tokens_right": float(right.float().mean()),
        "length": length,
        "prompts": len(rows),
    }


def novelty(
    student: transformers.PreTrainedModel, index: Any, *, samples: int, length: int, end_of_document: int, seed: int = 0
) -> dict[str, float]:
    """Share of the n-grams of a student's own text that its index doesn't hold (McCoy et al. 2023, arXiv 2111.09509).

    N-grams that reach over the end of a document don't count. By n; an n without any isn't there.
    """
    begin = torch.full((samples, length), end_of_document).to(student.device)
    generator = torch.Generator().manual_seed(seed)
    rows = continue_rows(student, begin, prompt_len=1, generator=generator, vocab_size=index.vocab_size).cpu().numpy()
    matched = index.match(rows, max_order=max(NGRAMS)).match_len
    places = np.arange(length)
    last_end = np.maximum.accumulate(np.where(rows == end_of_document, places, 0), axis=1)
    told = {}
    for n in NGRAMS:
        whole = places - last_end >= n
        if whole.any():
            told[str(n)] = float((matched[whole] < n).mean())
    return told
