"""Loading a tokenizer from wherever the user keeps it: a file, a folder, an index, a name on the model hub.

The tokenizer.json is read by the `tokenizers` library itself, which imports in an instant; transformers is
asked only where there is none. The token that ends a document is what the files beside it say, or a usual name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from corpus_teacher.data.file_kinds import looks_like_path
from corpus_teacher.data.tokenizers import END_OF_DOCUMENT, ByteTokenizer, SpecialTokens, Tokenizer, parse_vocab_size
from corpus_teacher.errors import TokenizerError

if TYPE_CHECKING:
    from corpus_index import CorpusIndex

_KNOWN_ENDS = (END_OF_DOCUMENT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")


def load_tokenizer(
    spec_or_index: str | Path | CorpusIndex,
    *,
    end_of_document: str | int | None = None,
    special_tokens: SpecialTokens | None = None,
) -> Tokenizer:
    """Load a tokenizer: `bytes`, a tokenizer.json, a folder that holds one, a name, or the one inside an
    index.

    Parameters
    ----------
    spec_or_index : str, Path or CorpusIndex
        A folder may be a saved tokenizer or model of transformers, or an index of ours.
    end_of_document : str or int, optional
        The token (its id or its name) that ends a document, where the tokenizer does not say so itself.
    special_tokens : {"text", "ids"}, optional
        How a text is read that contains the name of a special token; "text" by default, or as the index was built.

    Raises
    ------
    TokenizerError
        If there is none, or it has no fast form (a tokenizer.json).
    """
    if not isinstance(spec_or_index, (str, Path)):
        return _of_index(spec_or_index, special_tokens)
    spec = str(spec_or_index)
    path = Path(spec).expanduser()
    if spec == "bytes":
        tokenizer: Tokenizer = ByteTokenizer()
    elif parse_vocab_size(spec) is not None:
        raise TokenizerError(f"{spec!r} must be trained on the sources of an index first: it can't be loaded")
    elif path.is_dir():
        tokenizer = _of_folder(path, spec)
    elif path.is_file():
        tokenizer = _of_file(path, spec)
    elif path.exists():
        raise TokenizerError(f"the tokenizer {spec!r} is neither a file nor a folder")
    elif path.suffix == ".json" or looks_like_path(spec):
        raise TokenizerError(f"there is no tokenizer file or folder {spec!r}")
    else:
        tokenizer = _of_name(spec)
    if special_tokens is not None:
        tokenizer.read_special_tokens(special_tokens)
    if end_of_document is not None:
        tokenizer.end_of_document = tokenizer.find_token(end_of_document)
    return tokenizer


def load_chat_template(spec: str) -> Callable[[list[dict[str, Any]]], str]:
    """What makes text of a list of chat messages, as the tokenizer's own chat template says.

    Parameters
    ----------
    spec : str
        A folder, a tokenizer.json with its other files beside it, or a name.

    Raises
    ------
    TokenizerError
        If the tokenizer can't be loaded or has no chat template.
    """
    path = Path(spec).expanduser()
    place = str(path.parent if path.is_file() else path) if path.exists() else spec
    if spec == "bytes" or parse_vocab_size(spec) is not None:
        raise TokenizerError(f"the tokenizer {spec!r} has no chat template; name a tokenizer that has one")
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(place)
    except Exception as error:
        raise _no_tokenizer(spec, "transformers", error) from error
    if not loaded.chat_template:
        raise TokenizerError(f"the tokenizer {spec!r} has no chat template; name a tokenizer that has one")
    return lambda messages: str(loaded.apply_chat_template(messages, tokenize=False))


def _of_index(index: CorpusIndex, special_tokens: SpecialTokens | None = None) -> Tokenizer:
    """The tokenizer that an open index carries."""
    described = index.metadata.get("tokenizer")
    if not described:
        raise TokenizerError(
            f"the index {index.path} was built from ready tokens and holds no tokenizer; name one (`tokenizer`)"
        )
    data = bytes(index.attachment(described["file"]))
    return Tokenizer.from_bytes(
        data,
        spec=described["spec"],
        end_of_document=index.end_of_document,
        special_tokens=special_tokens or described.get("special_tokens", "text"),
    )


def _of_file(path: Path, spec: str) -> Tokenizer:
    """A tokenizer.json; its end of a document is what the files beside it say, or a usual name."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"the tokenizer {spec!r} can't be read: {error.strerror}") from error
    tokenizer = Tokenizer.from_bytes(data, spec=spec)
    if tokenizer.end_of_document is None:
        for name in (_named_end(path.parent), *_KNOWN_ENDS):
            token = tokenizer.backend.token_to_id(name) if name else None
            if token is not None:
                tokenizer.end_of_document = token
                break
    return tokenizer


def _named_end(folder: Path) -> str | None:
    """The eos_token that a saved tokenizer of transformers names."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            end = json.loads((folder / name).read_bytes()).get("eos_token")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(end, dict):
            end = end.get("content")
        if isinstance(end, str):
            return end
    return None


def _of_folder(path: Path, spec: str) -> Tokenizer:
    """A saved tokenizer or model of transformers, or an index of ours."""
    if (path / "tokenizer.json").is_file():
        tokenizer = _of_file(path / "tokenizer.json", spec)
        manifest = path / "manifest.json"
        if manifest.is_file():  # an index: its own metadata know best
            from corpus_teacher.storage import open_index

            with open_index(path) as index:
                return _of_index(index)
        return tokenizer
    if (path / "manifest.json").is_file():
        from corpus_index.shard_manifest import SHARDS_FORMAT, format_of

        from corpus_teacher.storage import open_index

        if format_of(path) == SHARDS_FORMAT:
            with open_index(path) as index:
                return _of_index(index)
    return _of_transformers(str(path), spec)


def _of_name(name: str) -> Tokenizer:
    """A name on the model hub (or in its cache): the tokenizer.json, else what transformers makes of it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        file = Path(hf_hub_download(name, "tokenizer.json"))
    except LocalEntryNotFoundError:  # the hub is out of reach; don't wait for it a second time
        return _of_transformers(name, name, local_files_only=True)
    except EntryNotFoundError:  # a model of older days: vocab.json and merges.txt, say
        return _of_transformers(name, name)
    except Exception as error:
        raise _no_tokenizer(name, "the model hub", error) from error
    with contextlib.suppress(Exception):
        hf_hub_download(name, "tokenizer_config.json")  # lands beside it, and names the end of a document
    return _of_file(file, name)


def _of_transformers(name: str, spec: str, **options: bool) -> Tokenizer:
    """Whatever AutoTokenizer loads, if it has a fast form."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(name, **options)
    except Exception as error:
        raise _no_tokenizer(spec, "transformers", error) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise TokenizerError(f"the tokenizer {spec!r} has no fast form (tokenizer.json); convert it first")
    return Tokenizer(backend, spec=spec, end_of_document=loaded.eos_token_id)


def _no_tokenizer(spec: str, who: str, error: Exception) -> TokenizerError:
    """The sentence about a name that nobody knows."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return TokenizerError(
        f"there is no tokenizer {spec!r}: it is neither 'bytes', train:VOCAB, a tokenizer.json nor a folder "
        f"here that holds one, and {who} says: {reason}"
    )
