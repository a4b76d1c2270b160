"""Makes infini_gram.json: what infini-gram counts in a small generated corpus, for the tests of `mle`.

    python make_infini_gram.py OUT.json

Runs where infini-gram (PyPI) is installed. Every document ends in the token 0, which no prompt holds, so that each
occurrence of a prompt is followed by something, as infini-gram's counts take for granted. (Its count of the empty
prompt is N + D + 1: it counts the separators of documents too.)
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path
from typing import Any

VOCAB_SIZE = 25
SEPARATOR = 65_535


def generate() -> list[list[int]]:
    """Documents of Zipf-distributed tokens, some passages copied."""
    rng = random.Random(8)
    words = range(1, VOCAB_SIZE - 1)
    documents: list[list[int]] = []
    for number in range(60):
        document = rng.choices(words, [1 / word for word in words], k=rng.randint(1, 40))
        if number % 3 == 2:
            document += documents[rng.randrange(number)][:-1] * rng.randint(1, 2)
        documents.append([*document, 0])
    return documents


def prompts(documents: list[list[int]]) -> list[list[int]]:
    """From the corpus, random ones, and random beginnings with an end from the corpus; some hold an absent token."""
    rng = random.Random(9)
    made: list[list[int]] = [[]]
    for number in range(150):
        document = rng.choice(documents)[:-1]
        start = rng.randrange(len(document))
        found = document[start : start + rng.randint(1, 8)]
        odd = [rng.randint(1, VOCAB_SIZE - 1) for _ in range(rng.randint(1, 4))]
        made.append([found, odd, odd + found][number % 3])
    return made


def ask(documents: list[list[int]], queries: list[list[int]], folder: Path) -> list[list[int]]:
    """Per prompt and next token: [next, count of the prompt, of both, length of the suffix, its count, with next]."""
    from infini_gram.engine import InfiniGramEngine

    tokens, offsets = array("H", [SEPARATOR]), array("Q")
    for document in documents:
        offsets.append(2 * len(tokens) - 2)
        tokens.extend([*document, SEPARATOR])
    (folder / "tokenized.0").write_bytes(tokens.tobytes())
    (folder / "offset.0").write_bytes(offsets.tobytes())
    options = {"data_dir": folder, "save_dir": folder, "temp_dir": folder / "temp", "token_dtype": "u16"}
    options |= {"cpus": 1, "mem": 1, "shards": 1, "ulimit": 1024}
    arguments = [str(part) for name, value in options.items() for part in ("--" + name, value)]
    subprocess.run([sys.executable, "-m", "infini_gram.indexing", *arguments], check=True, capture_output=True)
    # The id that it takes for the end of text can't be asked for: one that the corpus lacks.
    engine = InfiniGramEngine(
        index_dir=str(folder), eos_token_id=SEPARATOR - 1, vocab_size=SEPARATOR, token_dtype="u16"
    )
    rng = random.Random(10)
    answers = []
    for prompt in queries:
        following = rng.choice([0, rng.randint(1, 3), rng.randint(1, VOCAB_SIZE - 1)])
        fixed = engine.prob(prompt_ids=prompt, cont_id=following)
        longest = engine.infgram_prob(prompt_ids=prompt, cont_id=following)
        counts = [fixed["prompt_cnt"], fixed["cont_cnt"]]
        answers.append([following, *counts, longest["suffix_len"], longest["prompt_cnt"], longest["cont_cnt"]])
        for answer in (fixed, longest):
            assert answer["prompt_cnt"] == 0 or answer["prob"] == answer["cont_cnt"] / answer["prompt_cnt"]
    return answers


def make() -> dict[str, Any]:
    """The corpus, the prompts, the answers."""
    documents = generate()
    queries = prompts(documents)
    with tempfile.TemporaryDirectory() as folder:
        answers = ask(documents, queries, Path(folder))
    return {"vocab_size": VOCAB_SIZE, "documents": documents, "prompts": queries, "answers": answers}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(make(), separators=(",", ":")) + "\n")
