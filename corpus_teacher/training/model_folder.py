"""The finished student as a folder that other programs take for a model: weights, configuration, tokenizer, card.

A student learns from the index's tokens, and so the index says what its special tokens are: the end of a document ends
a text, begins one (every context of the index begins after one), and fills up rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.files import new_folder, write_bytes, write_text
from corpus_teacher.neural.pretrained import quiet
from corpus_teacher.settings import to_toml

_SPECIALS = ("bos", "eos", "pad")


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes
    ----------
    run : mapping
        As run.json has it: settings, teachers, versions.
    result : mapping
        As result.json has it.
    """

    run: Mapping[str, Any]
    result: Mapping[str, Any]

    def text(self, index: Any) -> str:
        """The README.md of the folder, in Markdown with the model hub's front matter."""
        run, result, settings = self.run, self.result, self.run["settings"]
        bits = result.get("bits_per_byte")
        results = [
            ("held-out cross-entropy", f"{result['held_out_nats']:.4f} nats/token"),
            *([("held-out bits per byte", f"{bits:.4f}")] if bits is not None else []),
            ("steps", f"{result['steps']:,}"),
            ("tokens read", f"{result['tokens']:,}"),
            ("parameters", f"{run['student_parameters']:,}"),
        ]
        sources = settings["data"].get("train") or [settings["data"]["index"]]
        lines = [
            "---", "library_name: transformers", "pipeline_tag: text-generation", "tags:", "- corpus-teacher", "---",
            "", f"# {Path(settings['out']).name}", "",
            "A causal language model, trained with corpus-teacher on hard labels and on what the teachers below say of",
            "the next token.", "",
            *_loading(settings),
            "## Data", "",
            f"- trained on: {', '.join(f'`{one}`' for one in sources)}",
            f"- evaluated on: {', '.join(f'`{one}`' for one in settings['data']['held_out'])}",
            f"- index: {index.num_tokens:,} tokens, {index.num_documents:,} documents, vocabulary {index.vocab_size:,},"
            f" fingerprint `{index.fingerprint}`", "",
            "## Teachers", "",
            *_teachers(run["teachers"]), "",
            "## Results", "",
            "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in results), "",
            "The held-out cross-entropy is the plain one to the data, whatever the targets were.", "",
            "## Settings", "",
            "```toml", to_toml(settings).rstrip(), "```", "",
            "Versions: " + ", ".join(f"{name} {number}" for name, number in run["versions"].items()) + ".", "",
        ]  # fmt: skip
        return "\n".join(lines)


def save_student(
    student: transformers.PreTrainedModel,
    folder: Path,
    index: Any,
    tokenizer: Tokenizer | None,
    source: Path | None = None,
    card: Card | None = None,
) -> None:
    """Write a student as a whole model folder; the folder appears when it is complete, in place of an older one.

    Parameters
    ----------
    student : PreTrainedModel
        In its saved configuration the special tokens are the index's; its own stays as it is.
    folder : Path
    index : CorpusIndex
        Whose tokens it learnt.
    tokenizer : Tokenizer, optional
        The index's.
    source : Path, optional
        The folder of the model that it went on from: a chat template there is the student's too.
    card : Card, optional

    Raises
    ------
    OutputError
        It can't be written.
    """
    end = index.end_of_document
    changes = {} if end is None else {f"{name}_token_id": int(end) for name in _SPECIALS}
    with (
        new_folder(folder, f".{folder.name}.saving-", replace=True) as scratch,
        _changed(student.generation_config, changes),
        _changed(student.config, {**changes, "use_cache": True}),  # no cache in training only
        _changed(
            student.config.get_text_config(), {**changes, "use_cache": True}
        ),  # of a student of ours, its inner one
    ):
        with quiet():
            student.save_pretrained(scratch)
            if tokenizer is not None:
                _save_tokenizer(scratch, tokenizer, end, getattr(student.config, "max_position_embeddings", None))
        if source is not None:
            _copy_chat_template(source, scratch)
        if card is not None:
            write_text(scratch / "README.md", card.text(index))


@contextmanager
def _changed(config: Any, changes: Mapping[str, Any]) -> Iterator[None]:
    """A configuration with other values of what it has, inside the block."""
    before = {name: getattr(config, name) for name in changes if hasattr(config, name)}
    for name in before:
        setattr(config, name, changes[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def _save_tokenizer(folder: Path, tokenizer: Tokenizer, end: int | None, longest: int | None) -> None:
    """The files that AutoTokenizer reads; tokenizer.json is that of the index, byte by byte."""
    name = None if end is None else tokenizer.backend.id_to_token(int(end))
    specials = {} if name is None else {f"{one}_token": name for one in _SPECIALS}
    more = {} if longest is None else {"model_max_length": int(longest)}
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend).from_str(tokenizer.to_bytes().decode()),
        clean_up_tokenization_spaces=False,
        **specials,
        **more,
    )
    wrapped.save_pretrained(folder)
    write_bytes(folder / "tokenizer.json", tokenizer.to_bytes())  # transformers adds to it what changes its fingerprint


def _copy_chat_template(source: Path, folder: Path) -> None:
    """The chat template of a model that the student went on from, where it has one."""
    if (source / "chat_template.jinja").is_file():
        shutil.copyfile(source / "chat_template.jinja", folder / "chat_template.jinja")
        return
    try:
        template = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return
    if isinstance(template, str):
        write_text(folder / "chat_template.jinja", template)


def _loading(settings: Mapping[str, Any]) -> list[str]:
    """How a student is loaded that transformers alone doesn't know."""
    corpus = settings.get("corpus") or {}
    told = [
        "It has a hashed table of n-grams beside its token embedding."
        if settings["student"].get("ngram_table")
        else "",
        "The log-probabilities of the index below are added to its logits." if corpus.get("residual") else "",
        "What it says is a mixture with the index below." if corpus.get("mixture") is not None else "",
    ]
    if not any(told):
        return []
    index = ", which opens the index where it was; `index=…` says where it is now" if any(told[1:]) else ""
    return [
        *filter(None, told),
        f'transformers alone doesn\'t know it: load it with `corpus_teacher.load_student("FOLDER")`{index}.', "",
    ]  # fmt: skip


def _teachers(told: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not told:
        return ["None: hard labels only."]
    return [
        f"- {name}: " + ", ".join(f"{key} {value}" for key, value in one.items() if value is not None)
        for name, one in told.items()
    ]
