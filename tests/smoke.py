"""The installed package from outside: build an index, ask it, verify it, teach a batch.

python tests/smoke.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

TEXT = "once upon a time there was a cat. once upon a time there was a dog. once upon a mat the cat sat. "


def run(*command: object) -> str:
    """The command line's output; a failure prints what it said."""
    line = [sys.executable, "-m", "corpus_teacher", *map(str, command)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def main() -> None:
    """Everything once."""
    with tempfile.TemporaryDirectory() as folder:
        texts, index = Path(folder, "texts"), Path(folder, "index")
        texts.mkdir()
        for number in range(3):
            (texts / f"{number}.txt").write_text(TEXT * 4 + f"this was text {number}.", encoding="utf-8")
        run("index", "build", texts, "--out", index, "--tokenizer", "bytes")
        answer = json.loads(run("index", "query", index, "once upon a ", "--json"))
        assert answer["continuations"][0]["text"] == "t", answer["continuations"][:3]
        run("index", "verify", index, "--full")

        import torch

        from corpus_teacher import CorpusTeacher, soft_cross_entropy

        teacher = CorpusTeacher(index)
        ids = torch.tensor([list(TEXT.encode()[:32])])
        targets = teacher(ids)
        logits = torch.zeros(1, 32, teacher.vocab_size, requires_grad=True)
        loss = soft_cross_entropy(logits, targets)
        loss.backward()
        assert torch.isfinite(loss)
        teacher.index.close()
    sys.stdout.write("the installed package builds, answers, verifies and teaches\n")


if __name__ == "__main__":
    main()
