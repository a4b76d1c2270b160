"""What loggers of other libraries say when they are imported, and nobody could act on."""

from __future__ import annotations

import logging
from functools import partial

_NOISE = {"torchao": "Failed to load ", "torch.utils._pytree": "is an Enum subclass and is now natively supported"}
"""What two loggers say when transformers imports torchao where it is installed."""


def still_noise() -> None:
    """From now on such records are dropped, in this process and in those forked from it."""
    for name, noise in _NOISE.items():
        logging.getLogger(name).addFilter(partial(_is_not, noise))


def _is_not(noise: str, record: logging.LogRecord) -> bool:
    """Whether a record of a log doesn't hold the noise."""
    return noise not in record.getMessage()
