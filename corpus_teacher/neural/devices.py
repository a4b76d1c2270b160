"""Where a model runs and in which numbers, by names."""

from __future__ import annotations

import torch

from corpus_teacher.errors import ConfigError
from corpus_teacher.neural.pretrained import known_device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types of a model's numbers that can be asked for by name."""


def find_dtype(name: str | None) -> torch.dtype | None:
    """A type by its name; None for the model's own.

    Raises
    ------
    ConfigError
        Another name.
    """
    if name is None:
        return None
    if name not in DTYPES:
        raise ConfigError(f"dtype is {name!r}: give float32, bfloat16 or float16")
    return DTYPES[name]


def find_device(name: str | torch.device | None) -> torch.device:
    """A device by its name, checked to be there.

    Parameters
    ----------
    name : str or torch.device, optional
        "auto": a GPU where there is one, else the CPU. None: the CPU. Or as torch names devices.

    Raises
    ------
    ConfigError
        No such device, here or at all.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return known_device(name or "cpu")
