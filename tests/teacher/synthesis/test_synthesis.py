"""Synthetic corpora as a user makes them: resumed runs, targets, prompts, files, the command and its sentences."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from corpus_index import CorpusIndex
from typer.testing import CliRunner, Result

from corpus_teacher.cli.main import app
from corpus_teacher.data import ByteTokenizer, build_index_from_documents, build_index_from_sources, train_tokenizer
from corpus_teacher.data.build import BuildOptions
from corpus_teacher.data.indexing import build_token_index
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.errors import ConfigError, FolderInUseError, InputError, OutputError, TokenizerError
from corpus_teacher.files import held_folder
from corpus_teacher.synthesis import (
    CorpusSampler,
    Filters,
    Prompts,
    Target,
    document_prompts,
    folder,
    synthesize,
    write_synthetic_corpus,
    writing,
)

from ...faults import run_faults
from ..neural_models import make_model

DOCUMENTS = ["the cat sat on the mat.", "the dog sat on the cat.", "a cat saw the dog.", "the mat saw a cat.", "on!"]
END = 256


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthesis") / "model"
    make_model(vocab_size=257).save_pretrained(path)
    (path / "tokenizer.json").write_bytes(ByteTokenizer().to_bytes())
    return path


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthesis") / "index"
    build_index_from_documents(DOCUMENTS, ByteTokenizer(), path, name="by hand").close()
    return path


@pytest.fixture(scope="module")
def index(index_path: Path) -> CorpusIndex:
    return CorpusIndex.open(index_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["synthesize", *(str(argument) for argument in arguments)])


def fine(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return str(result.stderr)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def documents_of(path: Path) -> list[list[int]]:
    tokens, starts = np.load(path / "tokens.npy"), np.load(path / "doc_starts.npy")
    return [tokens[lo:hi].tolist() for lo, hi in itertools.pairwise(starts)]


def write(index: CorpusIndex, out: Path, **options: Any) -> Any:
    sampler = CorpusSampler(index, max_order=options.pop("max_order", 2))
    options = {"target": Target(documents=20), "tokenizer": ByteTokenizer(), "length": 30, "batch_size": 4, **options}
    return write_synthetic_corpus(sampler, out, **options)


@pytest.mark.parametrize("form", ["tokens", "jsonl"])
def test_a_killed_run_goes_on_to_the_same_bytes(
    index: CorpusIndex, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "form": form,
        "target": Target(documents=40),
        "filters": Filters(min_tokens=3, max_run=4, max_copied=0.9, match_tokens=8),
        "novelty_index": index,
        "prompts": Prompts.of_lists([[97], [116, 104], []]),
    }
    whole = write(index, tmp_path / "whole", **options)
    assert whole.report["dropped"]["duplicate"] > 0
    assert whole.report["dropped"]["length"] > 0
    assert whole.report["dropped"]["novelty"] > 0

    class KilledError(Exception):
        pass

    real = writing.sample_documents
    for allowed in (2, 3):
        left = iter(range(allowed))

        def dying(*arguments: Any, left: Any = left, **named: Any) -> Any:
            if next(left, None) is None:
                raise KilledError
            return real(*arguments, **named)

        monkeypatch.setattr(writing, "sample_documents", dying)
        with pytest.raises(KilledError):
            write(index, tmp_path / "killed", **options)
    monkeypatch.setattr(writing, "sample_documents", real)
    assert len(list((tmp_path / "killed" / "parts").iterdir())) == 5
    assert json.loads((tmp_path / "killed" / "synthesis.json").read_text())["complete"] is False
    resumed = write(index, tmp_path / "killed", **options)
    assert resumed.new_samples == whole.new_samples - 20
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    again = write(index, tmp_path / "killed", **options)
    assert (again.new_samples, again.documents, again.report) == (0, 40, whole.report)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_run_that_dies_while_it_writes_the_corpus(
    index: CorpusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(index, tmp_path / "whole")

    def full(*arguments: Any, **named: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OutputError, match=r"tokens.npy can't be written \(No space left on device\)"):
        write(index, tmp_path / "killed")
    monkeypatch.undo()
    assert write(index, tmp_path / "killed").new_samples == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_corpus_is_whole_after_any_fault_and_a_rerun_ends_in_the_same_bytes(index_path: Path, tmp_path: Path) -> None:
    count = run_faults(
        tmp_path / "work",
        f"""
        import json
        import torch
        from corpus_index import CorpusIndex
        from corpus_teacher.synthesis import CorpusSampler, Target, write_synthetic_corpus
        torch.set_num_threads(1)
        index = CorpusIndex.open({str(index_path)!r})
        def write(out, overwrite=False, seed=0):
            write_synthetic_corpus(CorpusSampler(index, max_order=2), out, target=Target(documents=3), length=5,
                                   batch_size=2, seed=seed, overwrite=overwrite)
        def content(out):
            return {{path.name: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}}
        def prepare(folder):
            write(folder / "out")  # another corpus, which is begun anew
        def operate(folder):
            write(folder / "out", overwrite=True, seed=1)
        def check(folder, finished):
            record = json.loads((folder / "out" / "synthesis.json").read_text())
            if record["complete"]:
                files = {{entry["file"] for entry in record["files"]}}
                assert files <= set(content(folder / "out")), files
            try:
                write(folder / "out", seed=1)
            except Exception as error:
                assert "begin anew with overwrite" in str(error), error
                operate(folder)
            write(folder / "whole", seed=1)
            assert content(folder / "out") == content(folder / "whole")
        """,
        arguments="sizes=(100, 600), step=5",
        warm=True,
    )
    assert count > 10


def test_a_second_run_is_refused(index: CorpusIndex, tmp_path: Path) -> None:
    with held_folder(tmp_path / "out", "being written"):  # noqa: SIM117
        with pytest.raises(FolderInUseError, match="out is being written already"):
            write(index, tmp_path / "out")


def test_the_seed_and_the_batch_decide(index: CorpusIndex, tmp_path: Path) -> None:
    write(index, tmp_path / "a")
    write(index, tmp_path / "b")
    write(index, tmp_path / "c", seed=1)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert documents_of(tmp_path / "a") != documents_of(tmp_path / "c")


def test_targets(index: CorpusIndex, tmp_path: Path) -> None:
    by_tokens = write(index, tmp_path / "tokens", target=Target(tokens=200))
    sizes = [len(document) for document in documents_of(tmp_path / "tokens")]
    assert by_tokens.tokens == sum(sizes) >= 200 > sum(sizes[:-1])
    by_documents = write(index, tmp_path / "documents", target=Target(tokens=10**9, documents=7))
    assert by_documents.documents == 7 == len(documents_of(tmp_path / "documents"))
    assert by_documents.report["sampled"] < 12
    by_samples = write(index, tmp_path / "samples", target=Target(samples=10), filters=Filters(min_tokens=5))
    assert by_samples.report["sampled"] == 10 > by_samples.documents
    by_prompts = write(index, tmp_path / "prompts", target=Target(), prompts=Prompts.of_lists([[97]] * 6))
    assert by_prompts.report["sampled"] == 6


def test_what_a_document_holds(index: CorpusIndex, tmp_path: Path) -> None:
    prompts = Prompts.of_lists([list(b"the c"), list(b"a")])
    write(index, tmp_path / "with", prompts=prompts, length=12)
    write(index, tmp_path / "without", prompts=prompts, length=12, keep_prompt=False)
    evidence = np.load(tmp_path / "with" / "evidence.npy")
    held = documents_of(tmp_path / "with")
    assert len(held) == evidence.size == 20
    for document, row in zip(held, evidence, strict=True):
        assert document[-1] == END
        assert bytes(document[:-1]).startswith((b"the c", b"a"))
        assert len(document) == row["prompt_tokens"] + row["num_tokens"] + 1
        assert row["num_tokens"] == 12 or row["ended"]
        assert row["confidence"] < 0
    alone = np.load(tmp_path / "without" / "evidence.npy")
    assert [len(document) - 1 for document in documents_of(tmp_path / "without")] == alone["num_tokens"].tolist()
    assert set(alone["prompt_tokens"].tolist()) == {1, 5}
    record = json.loads((tmp_path / "with" / "synthesis.json").read_text())
    assert record["complete"] is True
    assert record["settings"]["teacher"]["index"] == index.fingerprint
    assert {entry["file"] for entry in record["files"]} == {*content(tmp_path / "with")} - {"synthesis.json"}


def test_indexes_are_built_of_both_forms(index: CorpusIndex, tmp_path: Path) -> None:
    for form in ("tokens", "jsonl"):
        write(index, tmp_path / form, form=form, length=200)
    held = documents_of(tmp_path / "tokens")
    ready = tmp_path / "tokens"
    build_index_from_sources(
        [str(ready / "tokens.npy")],
        tmp_path / "from-tokens",
        BuildOptions(tokenizer=str(ready / "tokenizer.json"), doc_offsets=ready / "doc_starts.npy"),
    )
    build_index_from_sources(
        [str(tmp_path / "jsonl")],
        tmp_path / "from-lines",
        BuildOptions(tokenizer=str(tmp_path / "jsonl" / "tokenizer.json")),
    )
    lines = [json.loads(line) for line in (tmp_path / "jsonl" / "documents.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [ByteTokenizer().decode(document[:-1]) for document in held]
    assert lines[0].keys() >= {"confidence", "num_tokens", "ended"}
    assert "longest_match" not in lines[0]
    for name in ("from-tokens", "from-lines"):
        with CorpusIndex.open(tmp_path / name) as built:
            assert built.num_documents == 20
            assert built.tokens[: len(held[0])].tolist() == held[0]


def test_prompts_are_beginnings(index_path: Path, tmp_path: Path) -> None:
    words = ByteTokenizer()
    of_index = document_prompts([str(index_path)], words, num_tokens=4, vocab_size=257, seed=1)
    taken = sorted(bytes(of_index[number].tolist()) for number in range(len(of_index)))
    assert taken == sorted(text[:4].encode() for text in DOCUMENTS if len(text) > 4)
    assert of_index[0].tolist() == of_index[len(of_index)].tolist()
    again = document_prompts([str(index_path)], words, num_tokens=4, vocab_size=257, seed=1)
    assert again.fingerprint() == of_index.fingerprint()
    assert document_prompts([str(index_path)], words, num_tokens=4, vocab_size=257, seed=2).fingerprint() not in (
        of_index.fingerprint(),
    )
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    whole = document_prompts([str(lines)], words, vocab_size=257)
    assert sorted(bytes(whole[number].tolist()).decode() for number in range(5)) == sorted(DOCUMENTS)
    assert whole.longest == max(map(len, DOCUMENTS))
    np.save(tmp_path / "ready.npy", np.array([*b"ab", END, *b"abc", END, *b"d"], np.uint16))
    ready = document_prompts([str(tmp_path / "ready.npy")], words, num_tokens=2, vocab_size=257)
    assert len(ready) == 1
    with pytest.raises(ConfigError, match="no document of more than 99 tokens"):
        document_prompts([str(lines)], words, num_tokens=99, vocab_size=257)
    with pytest.raises(ConfigError, match="say how many tokens of each"):
        document_prompts([str(index_path)], words, vocab_size=257)
    with pytest.raises(ConfigError, match="the prompts have 0 tokens"):
        document_prompts([str(lines)], words, num_tokens=0, vocab_size=257)
    with pytest.raises(TokenizerError, match="no tokenizer to read prompts with"):
        document_prompts([str(lines)], None, vocab_size=257)
    with pytest.raises(ConfigError, match="don't go together"):
        document_prompts([str(lines), str(tmp_path / "ready.npy")], words, vocab_size=257)
    with pytest.raises(ConfigError, match="there is no prompt"):
        Prompts.of_lists([])


def test_what_a_run_refuses(index: CorpusIndex, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing says when to stop"):
        write(index, tmp_path / "a", target=Target())
    with pytest.raises(ConfigError, match=r"form is 'text': give tokens or jsonl"):
        write(index, tmp_path / "a", form="text")
    with pytest.raises(ConfigError, match="text needs a tokenizer"):
        write(index, tmp_path / "a", form="jsonl", tokenizer=None)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        write(index, tmp_path / "a", batch_size=0)
    with pytest.raises(ConfigError, match="no index to measure"):
        write(index, tmp_path / "a", filters=Filters(max_match=3))
    with pytest.raises(ConfigError, match="target is 0 tokens"):
        Target(tokens=0)
    corpus = TokenFile(np.array([1, 2, 0], np.uint16), np.array([0, 3]))
    with (
        build_token_index(corpus, None, tmp_path / "small", vocab_size=3) as small,
        pytest.raises(ConfigError, match="index of 3 tokens and the teacher has 257"),
    ):
        write(index, tmp_path / "a", novelty_index=small)
    assert not (tmp_path / "a").exists()


def test_folders_are_not_mixed_up(index: CorpusIndex, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep me")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is not empty and holds no synthetic corpus"):
            write(index, tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "precious.txt").read_text() == "keep me"
    write(index, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"was begun with length 30 and this run has 31"):
        write(index, tmp_path / "out", length=31)
    (tmp_path / "out" / "notes.txt").write_text("keep me")
    assert write(index, tmp_path / "out", length=31, overwrite=True, form="jsonl").new_samples >= 20
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "documents.jsonl",
        "notes.txt",
        "synthesis.json",
        "tokenizer.json",
    }
    (tmp_path / "out" / "synthesis.json").write_text("{")
    with pytest.raises(InputError, match="can't be read"):
        write(index, tmp_path / "out", length=31)
    (tmp_path / "out" / "synthesis.json").write_text('{"format": "another"}')
    with pytest.raises(InputError, match="is no record of a synthetic corpus"):
        write(index, tmp_path / "out", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be made"):
        write(index, tmp_path / "file")


def test_a_damaged_part_is_named(index: CorpusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "write_corpus", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(index, tmp_path / "out")
    monkeypatch.undo()
    part = tmp_path / "out" / "parts" / "part-00001.npz"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match=r"part-00001.npz is damaged"):
        write(index, tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": np.array(9)}, "sizes has 0 axes, not one"),
        ({"tokens": np.zeros((3, 3), np.uint16)}, "tokens has 2 axes, not one"),
        ({"sizes": np.array([4.0, 5.0])}, "sizes are float64, not whole numbers"),
        ({"sizes": np.array([-1, 10])}, "sizes are not of documents of 9 tokens"),
        ({"sizes": np.array([4, 4])}, "sizes of 8 tokens, and 9 tokens"),
    ],
)
def test_a_part_of_other_arrays_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    whole = folder.Part(np.zeros(2, np.float32), np.arange(9, dtype=np.uint16), np.array([4, 5]))
    folder.write_part(tmp_path, 0, whole)
    assert [len(part.documents()) for part in folder.read_parts(tmp_path)] == [2]
    folder.write_part(tmp_path, 0, whole._replace(**changed))
    with pytest.raises(InputError, match=f"part-00000.npz is damaged .*{message}"):
        list(folder.read_parts(tmp_path))


def test_filters_that_let_nothing_pass(index: CorpusIndex, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of the last 50 batches .* 200 were dropped for length: loosen"):
        write(index, tmp_path / "a", filters=Filters(min_tokens=31))
    with pytest.raises(ConfigError, match=r"none of 10 documents passes the filters, 10 of them for confidence"):
        write(index, tmp_path / "b", filters=Filters(max_confidence=-900), target=Target(samples=10))


def test_the_command_with_a_model(model: Path, index_path: Path, tmp_path: Path) -> None:
    """Simple self-distillation: the model's own samples after prompts, tempered and cut."""
    prompts = ("--prompts", index_path, "--prompt-tokens", 3)
    found = fine(model, *prompts, "--temperature", 1.2, "--top-k", 20, "-T", 9, "--samples", 12, "-o", tmp_path / "out")
    assert found["report"]["sampled"] == 12
    assert found["teacher"]["kind"] == "neural"
    assert {bytes(document[:3]).decode() for document in documents_of(tmp_path / "out")} <= {
        text[:3] for text in DOCUMENTS
    }
    shown = run(model, *prompts, "--temperature", 1.2, "--top-k", 20, "-T", 9, "--samples", 12, "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    for words in ("kept 12 of 12 documents", "confidence, nats/token", "wrote"):
        assert words in shown.stdout


def test_the_command_with_an_index_and_with_both(model: Path, index_path: Path, tmp_path: Path) -> None:
    common = ("--index", index_path, "--max-order", 3, "--documents", 6, "-T", 20)
    corpus = fine(*common, "--format", "jsonl", "--prompt", "the", "--prompt", "a ", "-o", tmp_path / "corpus")
    assert corpus["teacher"]["kind"] == "corpus"
    assert corpus["report"]["measures"].keys() >= {"copied_share", "longest_match"}
    lines = [json.loads(line) for line in (tmp_path / "corpus" / "documents.jsonl").read_text().splitlines()]
    assert all(line["text"].startswith(("the", "a ")) for line in lines)
    mixed = fine(model, *common, "--corpus-weight", 0.9, "--max-match", 15, "-o", tmp_path / "mixed")
    assert mixed["teacher"]["kind"] == "mixed"
    assert mixed["teacher"]["corpus_weight"] == 0.9
    assert np.load(tmp_path / "mixed" / "evidence.npy")["longest_match"].max() <= 15
    neural = fine(model, "--against", index_path, "--documents", 6, "-T", 20, "-o", tmp_path / "neural")
    assert neural["report"]["measures"]["confidence"]["sampled"]["p50"] < -1
    assert (
        neural["report"]["measures"]["longest_match"]["sampled"]["p50"]
        < mixed["report"]["measures"]["longest_match"]["sampled"]["p50"]
    )


def test_the_sentences_of_the_command(model: Path, index_path: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out", "--documents", 3)
    assert "there is no teacher: give a model, an index, or both" in refused(*out)
    assert "give float32, bfloat16 or float16" in refused(model, *out, "--dtype", "int8")
    both = ("--prompt", "a", "--prompts", index_path)
    assert "give only one of both" in refused(model, *out, *both)
    assert "top-p 1.5" in refused(model, *out, "--top-p", 1.5)
    assert "min-confidence is 2.0" in refused(model, *out, "--min-confidence", 2)
    assert "no token of the tokenizer" in refused(model, *out, "--start-token", "<s>")
    assert "no causal language model can be loaded" in refused(tmp_path / "none", *out, "--tokenizer", "bytes")
    assert "nothing says when to stop" in refused(model, "--out", tmp_path / "out")
    bare = tmp_path / "bare"
    make_model(vocab_size=257).save_pretrained(bare)
    assert "there is no tokenizer beside the model" in refused(bare, *out)
    assert fine(bare, "-o", tmp_path / "named", "--documents", 1, "-T", 4, "--tokenizer", "bytes")["documents"] == 1
    other = tmp_path / "other"
    make_model(vocab_size=300).save_pretrained(other)
    (other / "tokenizer.json").write_bytes(train_tokenizer(["the cat sat on the mat"] * 9, 300).to_bytes())
    assert "is not" in refused(other, "--index", index_path, *out)
    assert "is not" in refused(other, "--against", index_path, *out)
    ready = tmp_path / "ready"
    corpus = TokenFile(np.array([1, 2, 0], np.uint16), np.array([0, 3]))
    build_token_index(corpus, None, ready, vocab_size=257, end_of_document=0).close()
    assert "holds no tokenizer" in refused(model, "--index", ready, *out)
    assert "no tokenizer to read them with" in refused("--index", ready, *out, "--prompt", "a")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_says_how_to_go_on(
    index_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "sample_documents", interrupted)
    result = run("--index", index_path, "--documents", 3, "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert "the same command goes on with what" in result.stderr


def test_a_wrong_vocabulary_in_the_api(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_order is -1"):
        synthesize(None, tmp_path / "out", index=tmp_path, max_order=-1, target=Target(documents=1))


@pytest.mark.parametrize("name", ["sequence-level", "self-distillation-samples"])
def test_the_commands_of_the_recipes_parse(name: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / "recipes" / f"{name}.md").read_text(encoding="utf-8")
    lines = re.search(r"```sh\n(.*?)```", text, flags=re.DOTALL).group(1).replace("\\\n", "").splitlines()  # type: ignore[union-attr]
    command = typer.main.get_command(app).commands["synthesize"]  # type: ignore[attr-defined]
    for line in lines:
        program, verb, *arguments = shlex.split(line)
        assert (program, verb) == ("corpus-teacher", "synthesize")
        assert command.make_context("synthesize", arguments).params["out"]
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert any(option in one.opts + one.secondary_opts for one in command.params) or option.endswith("-"), option
