"""On-policy distillation: the student's own text, scored by the corpus, which no cache of logits can do.

    python examples/on_policy.py

Two students go on from one start on Python's standard library: half label, half corpus teacher at every step; and the
same, but that at some steps the student continues the rows itself and the corpus says what should have followed.
Printed are the held-out loss, and of text that each student writes what its tokens cost by the corpus, and how long a
context the corpus knows there. One seed: it shows the way, no more.
"""

import argparse
import copy
import tempfile

import numpy as np
import torch

from corpus_teacher import CorpusTeacher, soft_cross_entropy
from corpus_teacher.data import TokenWindows, build_index_from_documents, tokenize_documents, train_tokenizer
from corpus_teacher.losses import blended_cross_entropy, label_smoothing_cross_entropy, shift_labels
from corpus_teacher.on_policy import OnPolicy, continue_rows
from corpus_teacher.standard_library import split_standard_library
from corpus_teacher.training import make_student


def train(student, windows, inside, outside, steps, settings, batch):
    """AdamW; `inside` teaches text of the index, `outside` what the student writes."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    for step in range(steps):
        rows = [windows[(step * batch + number) % len(windows)] for number in range(batch)]
        ids = torch.from_numpy(np.stack([row["input_ids"] for row in rows]))
        if settings.is_on_policy(step):
            ids = continue_rows(
                student, ids, prompt_len=settings.prompt_len, temperature=settings.temperature,
                top_k=settings.top_k, top_p=settings.top_p, generator=settings.generator(step),
            )  # fmt: skip
            counted = settings.sampled_mask(ids).float()
            loss = soft_cross_entropy(student(ids).logits, outside(ids), weights=counted)
        else:
            starts = np.array([row["starts_document"] for row in rows])
            targets = inside(ids, starts_document=starts)
            loss = blended_cross_entropy(student(ids).logits, shift_labels(ids), targets, corpus_weight=0.5).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def judge(student, held_out, outside, settings):
    """Held-out nats; nats that the corpus gives to the student's own tokens; tokens of context that it knows there."""
    nats = label_smoothing_cross_entropy(student(held_out).logits, shift_labels(held_out)).item()
    own = continue_rows(student, held_out, prompt_len=settings.prompt_len, generator=settings.generator(-1))
    targets, counted = outside(own), settings.sampled_mask(own).reshape(-1)
    surprise = -targets.probability_of(own.roll(-1, 1)).log()[counted].mean().item()
    return nats, surprise, targets.match_len[counted].float().mean().item()


def main() -> None:
    """Index, start, two arms, table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, value in (("bytes", 3_000_000), ("vocab", 1024), ("length", 64), ("steps", 120), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--share", type=float, default=0.5, help="of steps that are on-policy")
    chosen = parser.parse_args()
    split = split_standard_library(max_bytes=chosen.bytes)
    words = train_tokenizer((document.text for document in split.train), chosen.vocab)
    with tempfile.TemporaryDirectory() as folder:
        index = build_index_from_documents(split.train, words, f"{folder}/index", name="library")
        text = np.asarray(tokenize_documents(split.held_out, words, folder=folder).tokens, np.int64)
        held_out = torch.from_numpy(text[: min(len(text), 64 * 64) // chosen.length * chosen.length])
        inside, outside = (CorpusTeacher(index, max_order=3, leave_out=out) for out in ("self", None))
        windows = TokenWindows(index.tokens, chosen.length, doc_starts=index.doc_starts)
        settings, never = OnPolicy(chosen.share, prompt_len=chosen.length // 4), OnPolicy(0, chosen.length // 4)
        start = make_student(vocab_size=index.vocab_size)
        train(start, windows, inside, outside, chosen.steps, never, chosen.batch)
        print(f"{'student':<32}{'held-out nats':>14}{'own text, nats':>16}{'match, tokens':>15}")
        for name, arm in (("start", None), ("off-policy", never), (f"on-policy at {chosen.share:.0%}", settings)):
            student = copy.deepcopy(start)
            train(student, windows, inside, outside, chosen.steps if arm else 0, arm or never, chosen.batch)
            told = judge(student, held_out.view(-1, chosen.length), outside, settings)
            print(f"{name:<32}{told[0]:>14.4f}{told[1]:>16.4f}{told[2]:>15.2f}")
        index.close()


if __name__ == "__main__":
    main()
