"""Muon for the matrices of a student's layers, AdamW for all else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes the momentum of a matrix orthogonal before
it is applied. Its steps are scaled to the size of AdamW's (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that
one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from corpus_teacher.errors import ConfigError


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon and AdamW with shared groups of parameters: schedulers, clipping and checkpoints see one optimizer.

    Parameters
    ----------
    model : Module
        Muon takes the weights of its `torch.nn.Linear` layers, but for those named in `outside`.
    outside : collection of str
        Modules whose weights AdamW takes nevertheless: the layer that makes the logits.
    decayed : collection of str
        Parameters of AdamW that are drawn to 0.
    lr, weight_decay : float
        Of both.
    betas, eps
        Of AdamW.

    Raises
    ------
    ConfigError
        A model without such layers.

    Notes
    -----
    O(m·n·min(m, n)) a matrix and step, where AdamW takes O(m·n). Muon keeps one number for each weight, AdamW two.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        outside: Collection[str] = (),
        decayed: Collection[str] = (),
        lr: float,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        matrices = matrices_of(model, outside)
        if not matrices:
            raise ConfigError("muon is set and the student has no torch.nn.Linear layers to train by it: leave it out")
        rest = {name: one for name, one in model.named_parameters() if one.requires_grad and name not in matrices}
        groups = [
            {"params": [one for name, one in rest.items() if name in decayed], "weight_decay": weight_decay},
            {"params": [one for name, one in rest.items() if name not in decayed], "weight_decay": 0.0},
        ]
        self._muon = torch.optim.Muon(
            list(matrices.values()), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)
        super().__init__(self._groups(), {"lr": lr})
        self.param_groups = self._groups()

    def _groups(self) -> list[dict[str, Any]]:
        return [*self._muon.param_groups, *self._adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        self._muon.step()
        self._adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = self._groups()  # loading makes new ones


def matrices_of(model: nn.Module, outside: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """The weights that Muon takes, by name.

    Examples
    --------
    >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    >>> list(matrices_of(model, outside=["2"]))
    ['1.weight']
    """
    kept = {id(one.weight) for name, one in model.named_modules() if name in outside}
    kept |= {id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding)}
    return {
        f"{name}.weight" if name else "weight": one.weight
        for name, one in model.named_modules()
        if isinstance(one, nn.Linear) and one.weight.requires_grad and id(one.weight) not in kept
    }
