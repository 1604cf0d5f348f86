"""Muon (Jordan et al., 2024): momentum, orthogonalized; in float32, because many CPUs are slow in bfloat16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """For matrices only. Matrices of the same shape are orthogonalized together, which is faster on a CPU."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update; `closure` is not used."""
        del closure
        for group in self.param_groups:
            by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, lr=group["lr"], momentum=group["momentum"])

    def _update(self, parameters: list[Tensor], *, lr: float, momentum: float) -> None:
        directions: list[Tensor] = []
        for parameter in parameters:
            assert parameter.grad is not None
            average = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            average.lerp_(parameter.grad, 1 - momentum)
            directions.append(parameter.grad.lerp(average, momentum))
        scale = max(1.0, parameters[0].shape[0] / parameters[0].shape[1]) ** 0.5
        for parameter, direction in zip(parameters, orthogonalize(torch.stack(directions)), strict=True):
            parameter.add_(direction, alpha=-lr * scale)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest matrices [N, rows, columns] with singular values about 1, by five Newton-Schulz steps."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / ((x * x).sum((1, 2), keepdim=True).sqrt() + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if is_tall else x
