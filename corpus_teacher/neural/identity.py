"""Who taught what: keys of token windows, the identity of a model, and whether two tokenizers are one.

A cache is keyed by content: what a teacher says of a window depends on the window's tokens alone, so the key of a
window is a hash of them. A later run may read windows in any order and batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, InputError, TokenizerError

KEY_BYTES = 16
_SAMPLED = 4096
_SHOWN = 3
_ROUNDED_TO = (8, 16, 32, 64, 128, 256, 512, 1024)
_LOG = logging.getLogger("corpus_teacher")


def token_rows(input_ids: npt.ArrayLike | Tensor, vocab_size: int) -> npt.NDArray[np.int64]:
    """Token ids as a contiguous (B, T) array on the CPU, checked to be in the vocabulary.

    Raises
    ------
    InputError
        Another shape or type, or a token outside.
    """
    array = input_ids.detach().cpu().numpy() if isinstance(input_ids, Tensor) else np.asarray(input_ids)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise InputError(
            f"input_ids is {array.dtype} of shape {array.shape}: give integer token ids of shape (B, T) or (T,)"
        )
    rows = np.ascontiguousarray(array, np.int64)
    if rows.size and not 0 <= rows.min() <= rows.max() < vocab_size:
        wrong = int(rows.min()) if rows.min() < 0 else int(rows.max())
        raise InputError(f"token id {wrong} is outside of the teacher's vocabulary of {vocab_size}")
    return rows


def window_keys(rows: npt.NDArray[np.integer[Any]]) -> list[bytes]:
    """BLAKE2b of each row's ids as little-endian uint32, 16 bytes.

    Parameters
    ----------
    rows : ndarray of shape (B, T), integer

    Examples
    --------
    >>> one, other, again = window_keys(np.array([[1, 2], [2, 1], [1, 2]]))
    >>> one == again, one == other, len(one)
    (True, False, 16)
    """
    return [hashlib.blake2b(row.tobytes(), digest_size=KEY_BYTES).digest() for row in rows.astype("<u4")]


def model_fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 (hex) of the names, shapes and types of all weights, and of up to 4,096 evenly spaced values of each.

    Notes
    -----
    Fine-tuning changes all of a tensor and so the fingerprint; a change of a few single values may pass. The same
    on every device. Milliseconds, where all of an 8-billion-parameter model takes half a minute.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.shape[0] // _SAMPLED)
        values = flat[::step][:_SAMPLED].to("cpu", torch.float64).numpy()
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(values.astype("<f8").tobytes())
    return digest.hexdigest()


def check_same_tokenizer(teacher: Tokenizer, student: Tokenizer) -> int | None:
    """Refuse a teacher that reads text in another way than the student or the index.

    Returns
    -------
    int or None
        The student's V where the teacher's tokenizer has tokens beyond, and gives all of the student's the same ids:
        what the teacher's targets are cut to. None where the two are the same.

    Raises
    ------
    TokenizerError
        One text would have other ids, or the same ids other meanings; with the first three that differ.
    """
    if teacher.fingerprint == student.fingerprint:
        return None
    theirs, own = teacher.vocabulary, student.vocabulary
    differ = [token for token in sorted(own) if theirs.get(token) != own[token]]
    where = [f"id {token} is {theirs.get(token)!r} and {own[token]!r}" for token in differ[:_SHOWN]]
    if not differ:
        parts = ("normalizer", "pre_tokenizer")
        contents = [json.loads(one.to_bytes()) for one in (teacher, student)]
        where = [f"their {name} differs" for name in parts if contents[0].get(name) != contents[1].get(name)]
        if not where and len(theirs) > len(own):
            return student.vocab_size
        where = where or ["their merges or added tokens differ"]
    raise TokenizerError(
        f"the teacher's tokenizer {teacher.spec!r} ({teacher.vocab_size:,} ids, {teacher.fingerprint[:12]}…) is not "
        f"{student.spec!r} ({student.vocab_size:,} ids, {student.fingerprint[:12]}…): {', '.join(where)}; build the "
        "index and make the student with the teacher's tokenizer"
    )


def check_vocabulary(model_size: int, vocab_size: int | None, tokenizer: Tokenizer | None) -> int:
    """V of the targets: the student's or index's where the model has it, its own otherwise.

    A model's embeddings may be padded beyond its tokenizer's ids; such logits are no tokens and are left out, with a
    line in the log, where the tokenizer proves that they are padding, or the model's size is V rounded up as models'
    sizes are.

    Raises
    ------
    ConfigError
        A vocabulary that the model's logits don't cover, or cover with tokens to spare.
    """
    if vocab_size is None or vocab_size == model_size:
        return model_size
    if vocab_size > model_size:
        raise ConfigError(
            f"the teacher knows {model_size:,} tokens and the student or index {vocab_size:,}: "
            "give both the same tokenizer"
        )
    rounded = any(-(-vocab_size // step) * step == model_size for step in _ROUNDED_TO)
    if not rounded if tokenizer is None else tokenizer.vocab_size > vocab_size:
        known = (
            "and no tokenizer says that the rest is padding"
            if tokenizer is None
            else (f"of which its tokenizer uses {tokenizer.vocab_size:,}")
        )
        raise ConfigError(
            f"the teacher knows {model_size:,} tokens, {known}, and the student or index only {vocab_size:,}: "
            "give both the same tokenizer"
        )
    log_cut(f"the model's {model_size - vocab_size:,} outputs from {vocab_size:,} on are taken as padding")
    return vocab_size


def log_cut(what: str) -> None:
    """One line about outputs of a teacher that no student is taught."""
    _LOG.warning("neural teacher: %s, and left out of the targets", what)
