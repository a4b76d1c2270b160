"""Makes kenlm.json: what KenLM says of a small generated text, for the tests of modified Kneser–Ney.

    python make_kenlm.py PATH/TO/lmplz OUT.json

`lmplz` and, beside it, `query` are built from the sources of kpu/kenlm. Token ids are words, a document is a line; the
end-of-document token 0, the last of every document, is KenLM's </s>, and the last id, no word of the corpus, <unk>.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ORDERS = (2, 3, 4, 5)  # of the model: contexts of up to one symbol less
PADDED = 300  # of --vocab_pad


def generate(seed: int, vocab_size: int, num_documents: int, copied: float) -> list[list[int]]:
    """Documents of Zipf-distributed tokens; a share of their passages is copied from earlier documents."""
    rng = random.Random(seed)
    words = range(1, vocab_size - 1)
    weights = [1 / word for word in words]
    documents: list[list[int]] = [[0]]
    for _ in range(num_documents):
        document: list[int] = []
        for _ in range(rng.randint(1, 5)):
            source = rng.choice(documents)[:-1]
            if source and rng.random() < copied:
                start = rng.randrange(len(source))
                document += source[start : start + rng.randint(2, 8)]
            else:
                document += rng.choices(words, weights, k=rng.randint(1, 6))
        documents.append([*document, 0])
    return documents


def held_out(documents: list[list[int]], seed: int, vocab_size: int) -> list[list[int]]:
    """New documents, half copied from the corpus, with a word here and there that the corpus lacks."""
    made = generate(seed, vocab_size, 10, 0.0)
    rng = random.Random(seed)
    for document in made[1:]:
        source = rng.choice(documents[1:])[:-1]
        document[:0] = source[: rng.randint(0, 8)]
        place = rng.randrange(len(document) - 1)
        document[place:place] = source[-4:]
        if rng.random() < 0.6:
            document[rng.randrange(len(document) - 1)] = vocab_size - 1
    return made


def text_of(documents: list[list[int]]) -> str:
    """A line a document, without its end."""
    return "".join(" ".join(map(str, document[:-1])) + "\n" for document in documents)


def ask(lmplz: Path, corpus: dict[str, Any], order: int, *options: str) -> dict[str, Any]:
    """The discounts of one model by order, log10 probabilities of the held-out tokens, document by document."""
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "model.arpa"
        built = subprocess.run(
            [lmplz, "-o", str(order), "-S", "200M", "-T", folder, "--arpa", arpa, *options],
            input=text_of(corpus["documents"]),
            capture_output=True,
            text=True,
            check=True,
        )
        asked = subprocess.run(
            [lmplz.with_name("query"), "-v", "word", "-v", "summary", arpa],
            input=text_of(corpus["held_out"]),
            capture_output=True,
            text=True,
            check=True,
        )
    discounts = re.findall(r"^\d+ \d+ D1=(\S+) D2=(\S+) D3\+=(\S+)$", built.stderr, re.MULTILINE)
    scores = iter(re.findall(r"=\d+ \d+ (\S+)", asked.stdout))
    lines = [[float(next(scores)) for _ in document] for document in corpus["held_out"]]
    perplexity = re.search(r"Perplexity including OOVs:\s*(\S+)", asked.stdout)
    assert len(discounts) == order
    assert perplexity is not None
    assert next(scores, None) is None
    return {
        "order": order,
        "options": list(options),
        "discounts": [[float(number) for number in numbers] for numbers in discounts],
        "fallback": "Substituting fallback" in built.stderr,
        "perplexity": float(perplexity[1]),
        "log10": lines,
    }


def make(lmplz: Path) -> dict[str, Any]:
    """All corpora, each with its models."""
    corpora = {
        "plain": {"vocab_size": 60, "documents": generate(1, 60, 260, 0.6)},
        "needs fallback": {"vocab_size": 12, "documents": generate(2, 12, 40, 0.5) * 3},
        "ends in a frequent n-gram": {"vocab_size": 30, "documents": generate(16, 30, 60, 0.7)},
    }
    answers = {}
    for number, (name, corpus) in enumerate(corpora.items()):
        corpus["held_out"] = held_out(corpus["documents"], 100 + number, corpus["vocab_size"])
        fallback = ["--discount_fallback"] if number else []
        corpus["models"] = [ask(lmplz, corpus, order, *fallback) for order in ORDERS]
        if not number:
            corpus["models"].append(ask(lmplz, corpus, 3, "--vocab_pad", str(PADDED)))
        answers[name] = corpus
    return answers


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(make(Path(sys.argv[1])), separators=(",", ":")) + "\n")
