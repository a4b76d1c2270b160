"""Minimising a smooth function of many numbers, in numpy alone: the index doesn't depend on scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def minimise(
    loss_of: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, rounds: int, memory: int = 10
) -> np.ndarray:
    """L-BFGS with a backtracking line search (Nocedal 1980; Nocedal & Wright 2006, algorithm 7.4).

    Parameters
    ----------
    loss_of : callable
        Loss and gradient at a point.
    start : ndarray of shape (n,), float64
    rounds : int
        Steps at most; it ends before where a step gains less than 10⁻⁷ of the loss.
    memory : int
        Steps that the curvature is estimated from.

    Returns
    -------
    ndarray of shape (n,), float64
    """
    point = start
    loss, slope = loss_of(point)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(rounds):
        direction = -slope
        kept = []
        for step, bend in reversed(steps):
            part = (step @ direction) / (step @ bend)
            kept.append(part)
            direction = direction - part * bend
        if steps:
            step, bend = steps[-1]
            direction = direction * ((step @ bend) / (bend @ bend))
        else:
            direction = direction / max(1e-12, float(np.abs(slope).max()))
        for (step, bend), part in zip(steps, reversed(kept), strict=True):
            direction = direction + step * (part - (bend @ direction) / (step @ bend))
        descent = float(slope @ direction)
        if descent >= 0.0:
            break
        length = 1.0
        while True:
            new_point = point + length * direction
            new_loss, new_slope = loss_of(new_point)
            if new_loss <= loss + 1e-4 * length * descent or length < 1e-8:
                break
            length /= 2
        if not new_loss < loss:
            break
        step, bend = new_point - point, new_slope - slope
        if step @ bend > 1e-14:
            steps = [*steps[1 - memory :], (step, bend)]
        gained = loss - new_loss
        point, loss, slope = new_point, new_loss, new_slope
        if gained < 1e-7 * abs(loss):
            break
    return point
