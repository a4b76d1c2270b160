"""The commands about the teacher, as a user meets them."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus_index import ESTIMATORS
from typer.testing import CliRunner, Result

from corpus_teacher.cli.main import app
from corpus_teacher.data.documents import Progress
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.tokenizers import ByteTokenizer

STORY = "the cat sat on the mat. the cat saw the dog. the dog sat on the cat."


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fine(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


def answer(*arguments: object) -> Any:
    return json.loads(fine(*arguments, "--json").stdout, parse_constant=lambda name: pytest.fail(name))


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    return str(result.stderr)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli-teacher") / "index"
    documents = [STORY, f"{STORY} <b>And</b> more.", "nothing of the kind"]
    build_index_from_documents(documents, ByteTokenizer(), path, name="by hand").close()
    return path


def test_sample(index: Path) -> None:
    command = ("sample", index, "--prompt", "the cat s", "--num", 2, "--length", 30, "--top-k", 5, "--seed", 3)
    found = answer(*command, "--evidence")
    assert [len(sample["tokens"]) for sample in found["samples"]] == [one["num_tokens"] for one in found["samples"]]
    assert found["samples"][0]["tokens"][0]["order"] == 5
    assert answer(*command)["samples"][0]["text"] == found["samples"][0]["text"]
    shown = fine(*command, "--evidence")
    assert "[5×" in shown.stdout
    assert "tokens/s" in shown.stderr
    plain = fine(*command).stdout.replace("\n", "")
    assert plain.startswith("the cat s" + found["samples"][0]["text"].replace("\n", ""))


def test_sample_refuses(index: Path) -> None:
    assert "there is no estimator 'best'" in refused("sample", index, "--estimator", "best")
    assert "top-p 1.5 must be above 0" in refused("sample", index, "--top-p", 1.5)
    assert "no index" in refused("sample", index / "nowhere")


def test_near_duplicates(index: Path, tmp_path: Path) -> None:
    found = answer("index", "near-duplicates", index, "--lengths", "64, 8", "--top-length", 16)
    assert [one["length"] for one in found["lengths"]] == [8, 64]
    # position n of a story repeats the other's last n tokens, up to what follows its last one
    assert found["lengths"][1]["positions"] == 2 * (len(STORY) + 1 - 64)
    assert found["pairs"][0]["document"] == 0
    assert found["pairs"][0]["other"] == 1
    assert found["pairs"][0]["begins"] == STORY[:16]
    page = tmp_path / "deep" / "page.html"
    shown = fine("index", "near-duplicates", index, "--top-length", 16, "--out", page)
    for words in ("position", "by hand, document 1", f"wrote {page}"):
        assert words in shown.stdout
    html = page.read_text()
    assert '<svg class="plot"' in html
    assert "http" not in html.replace("http://www.w3.org/", "")  # names of namespaces
    assert "no document shares 200" in fine("index", "near-duplicates", index, "--top-length", 200).stdout


def test_near_duplicates_refuses(index: Path, tmp_path: Path) -> None:
    assert "--lengths 'a,b' is not a list of whole numbers" in refused(
        "index", "near-duplicates", index, "--lengths", "a,b"
    )
    assert "length 300 is outside" in refused("index", "near-duplicates", index, "--lengths", "300")
    (tmp_path / "file").touch()
    page = tmp_path / "file" / "page.html"
    assert "can't be written" in refused("index", "near-duplicates", index, "--out", page)


def test_no_command_here_imports_torch(index: Path) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom corpus_teacher.cli.main import app\n"
        f"for command in (['sample', {str(index)!r}], ['index', 'near-duplicates', {str(index)!r}]):\n"
        "    assert CliRunner().invoke(app, command).exit_code == 0\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_eval(index: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat saw a mat")
    command = ("teacher", "eval", index, "--data", tmp_path / "a.txt", "--max-order", 3, "--max-order", 1)
    found = answer(*command, "--estimator", "witten-bell", "--estimator", "mle")
    assert [(one["estimator"], one["max_order"]) for one in found["scores"]] == [
        ("witten-bell", 1),
        ("witten-bell", 3),
        ("mle", 1),
        ("mle", 3),
    ]
    assert (found["num_tokens"], found["num_bytes"]) == (18, 17)
    assert found["scores"][3]["cross_entropy_nats"] == "inf"
    page = tmp_path / "page.html"
    shown = fine(*command, "--all", "--out", page).stdout
    for words in ("nats/token", "bits/byte", "p = 0", "pitman-yor", "share of positions", "by longest match", "wrote"):
        assert words in shown
    assert "…" not in shown
    assert "all figures are of the exact distributions" in " ".join(shown.split())
    assert "<h2>Reliability</h2>" in page.read_text()
    cut = fine(*command, "--estimator", "auto", "--top-k", 2, "--max-order", "none").stdout
    assert "of targets with 2 explicit tokens" in " ".join(cut.split())
    assert "auto, order any, by longest match" in " ".join(cut.split()) or "auto, order 3, by longest match" in cut
    assert "--max-order 'all' is not an order" in refused(*command, "--max-order", "all")
    assert "--max-order -1 is too small" in refused(*command, "--max-order", "-1")
    assert "there is no file" in refused("teacher", "eval", index, "--data", tmp_path / "b.txt")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fit(index: Path, tmp_path: Path, name: str) -> None:
    kept = tmp_path / "kept.json"
    found = answer("teacher", "fit", index, "--estimator", name, "--max-order", 2, "--out", kept)
    assert (found["estimator"], found["max_order"], found["path"]) == (name, 2, str(kept))
    assert found["fingerprint"] == json.loads(kept.read_text())["fingerprint"]
    assert all(len(line) == 1 + len(found["heads"]) for line in found["parameters"])
    assert bool(found["parameters"]) == (name not in ("mle", "witten-bell", "add-k", "stupid-backoff", "ppm-c"))
    assert found["positions"] > 0
    assert found["nats"] == "inf" or 0 < found["nats"] == pytest.approx(found["bits"] * math.log(2))
    assert "say --overwrite to overwrite it" in refused("teacher", "fit", index, "--estimator", name, "--out", kept)
    shown = fine("teacher", "fit", index, "-e", name, "--max-order", 2, "--out", kept, "--overwrite").stdout
    assert "cross-entropy of the evidence" in shown
    assert "…" not in shown
    by_file = answer("index", "query", index, "the c", "--estimator", kept)["explained"]
    by_name = answer("index", "query", index, "the c", "--estimator", name, "--max-order", 2)["explained"]
    assert by_file["fit_file"] is None  # what was given is no fit of the index's own
    assert by_file == by_name | {"fit_file": None}


def test_a_fitted_file_serves_everywhere(index: Path, tmp_path: Path) -> None:
    default = index.with_name("index.modified-kneser-ney-2.json")
    command = ("teacher", "fit", index, "--estimator", "modified-kneser-ney", "--max-order", 2)
    assert answer(*command)["path"] == str(default)
    (tmp_path / "a.txt").write_text("the cat saw a mat")
    scores = answer("teacher", "eval", index, "--data", tmp_path / "a.txt", "--estimator", default)["scores"]
    assert [(one["estimator"], one["max_order"]) for one in scores] == [("modified-kneser-ney", 2)]
    by_file = answer("sample", index, "--estimator", default, "--seed", 1)
    by_name = answer("sample", index, "--estimator", "modified-kneser-ney", "--max-order", 2, "--seed", 1)
    assert by_file["samples"] == by_name["samples"]
    assert by_file["max_order"] == 2
    found = answer("teacher", "export-arpa", index, "--estimator", default, "--out", tmp_path / "a.arpa")
    assert (found["order"], found["convention"]) == (3, "plain")


def test_fit_refuses(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean 'auto'" in refused("teacher", "fit", index, "--estimator", "autos")
    deep = tmp_path / "nowhere" / "kept.json"
    with monkeypatch.context() as patch:
        patch.setattr("corpus_index.Estimator.fit", lambda *_: pytest.fail("it was fitted first"))
        assert "there is no folder" in refused("teacher", "fit", index, "--estimator", "mle", "--out", deep)
    assert "no estimator at" in refused("sample", index, "--estimator", deep)


def test_export_arpa(index: Path, tmp_path: Path) -> None:
    path, packed = tmp_path / "model.arpa", tmp_path / "model.arpa.gz"
    found = answer("teacher", "export-arpa", index, "--out", path, "--order", 3)
    text = path.read_text()
    assert text.startswith("\\data\\\n" + "".join(f"ngram {n}={c}\n" for n, c in enumerate(found["ngrams"], 1)))
    assert text.endswith("\n\\end\\\n")
    assert f"\t<s> {ord('t')} {ord('h')}\n" in text
    assert (found["order"], len(found["ngrams"]), len(found["discounts"])) == (3, 3, 3)
    assert found["size_bytes"] == len(text.encode())
    shown = fine("teacher", "export-arpa", index, "-o", packed, "--order", 3).stdout
    assert f"{found['ngrams'][2]:,}" in shown
    assert f"wrote {packed}" in shown.replace("\n", "")
    assert gzip.decompress(packed.read_bytes()).decode() == text
    plain = answer(
        *("teacher", "export-arpa", index, "--out", path, "--order", 2, "--overwrite", "--convention", "plain"),
        *("--estimator", "kneser-ney"),
    )
    assert (plain["convention"], plain["estimator"], len(plain["ngrams"])) == ("plain", "kneser-ney", 2)
    assert "ngram 3" not in path.read_text()
    (tmp_path / "few").mkdir()
    build_index_from_documents(["ab"], ByteTokenizer(), tmp_path / "few" / "index", name="few").close()
    few = fine("teacher", "export-arpa", tmp_path / "few" / "index", "-o", path, "--overwrite")
    assert "too few to fit the discounts of n = 1, 2, 3, 4, 5" in few.stdout


def test_export_arpa_refuses(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.arpa"
    path.touch()
    command = ("teacher", "export-arpa", index, "--out")
    assert "exists already" in refused(*command, path)
    assert "can't hold witten-bell" in refused(*command, tmp_path / "new", "--estimator", "witten-bell")
    assert "no estimator 'best'" in refused(*command, tmp_path / "new", "--estimator", "best")
    assert "give a number" in refused(*command, tmp_path / "new", "--max-order", "none")
    assert "'x' is not an order" in refused(*command, tmp_path / "new", "--max-order", "x")
    assert "differ: give one of both" in refused(*command, tmp_path / "new", "--max-order", 3, "--order", 3)
    with monkeypatch.context() as patch:
        patch.setattr("corpus_index.CorpusIndex.fitted", lambda *_: pytest.fail("it was fitted first"))
        assert "can't hold auto" in refused(*command, tmp_path / "new", "-e", "auto")
    assert "convention 'srilm' is unknown" in refused(*command, tmp_path / "new", "--convention", "srilm")
    assert "can't be written" in refused(*command, path / "below")
    assert "no index" in refused("teacher", "export-arpa", tmp_path / "nowhere", "--out", tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_fit_that_takes_long_is_reported_once(index: Path, tmp_path: Path) -> None:
    from corpus_teacher.analysis.query import index_query
    from corpus_teacher.analysis.sample import sample_index

    own = shutil.copytree(index, tmp_path / "index")  # in the shared one other tests may have kept the fits

    def by_query(progress: Progress) -> None:
        index_query(own, "the", estimator="pitman-yor", max_order=1, progress=progress)

    def by_sample(progress: Progress) -> None:
        sample_index(own, length=2, estimator="pitman-yor", max_order=2, progress=progress)

    for call in (by_query, by_sample):
        told: list[tuple[str, float]] = []
        call(lambda stage, done, *_, told=told: told.append((stage, done)))
        assert told == [("fit pitman-yor", 0), ("fit pitman-yor", 1)]
        call(lambda *_: pytest.fail("a kept fit was made again"))
