"""AdamW on float32 weights, for every dtype that the model computes in.

At a learning rate of 1e-6 a bfloat16 weight, with its 8 significant bits, would never change. So the weights, gradients
and moments of a bfloat16 model are kept in float32 here, and its parameters are rounded copies: 18 bytes per parameter
(2 for the copy, 4 + 4 + 8 here). The parameters of a float32 model are used directly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from azr.config import LearnerConfig
from azr.errors import CheckpointError, PolicyError


class OptimizerState(NamedTuple):
    """Everything that the next step depends on, by parameter name."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    """`<parameter>/exp_avg`, `/exp_avg_sq` and `/step`; empty before the first step."""
    num_steps: int


class MasterAdamW:
    """Accumulates gradients over micro-batches, then clips and steps."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], config: LearnerConfig) -> None:
        self._parameters = dict(parameters)
        self._masters = {name: _master_of(parameter) for name, parameter in parameters.items()}
        self._config = config
        self.num_steps = 0
        self._adamw = torch.optim.AdamW(
            list(self._masters.values()), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step: it rises linearly over the first `warmup_steps`, then stays constant."""
        warm = min(1.0, (self.num_steps + 1) / max(1, self._config.warmup_steps))
        return self._config.learning_rate * warm

    def accumulate(self) -> None:
        """Add the gradients of one backward pass, in float32, and free the model's own."""
        for name, parameter in self._parameters.items():
            master = self._masters[name]
            if master is parameter or parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def step(self) -> float:
        """Clip the gradient, update the weights, drop the gradient; returns its norm before clipping.

        Raises:
            PolicyError: the gradient is not finite; no weight was changed.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self._masters.values(), self._config.max_grad_norm))
        if not math.isfinite(norm):
            self.discard()
            raise PolicyError(f"the norm of the gradient is {norm}. The weights were not changed.")
        for group in self._adamw.param_groups:
            group["lr"] = self.learning_rate
        self._adamw.step()
        self.num_steps += 1
        self.discard()
        self._publish()
        return norm

    def discard(self) -> None:
        """Drop the accumulated gradients."""
        self._adamw.zero_grad()

    def state(self) -> OptimizerState:
        """References, not copies."""
        moments: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            for key, value in cast("dict[str, Tensor]", self._adamw.state.get(master, {})).items():
                moments[f"{name}/{key}"] = value
        weights = {name: master.detach() for name, master in self._masters.items()}
        return OptimizerState(weights, moments, self.num_steps)

    @torch.no_grad()
    def restore(self, state: OptimizerState) -> None:
        """Take over a state.

        Raises:
            CheckpointError: its names or shapes are not those of this model; nothing was changed.
        """
        self._check(state)
        entries = [self._moments_of(name, state.moments) for name in self._masters]
        self._adamw.load_state_dict(
            {
                "state": {place: entry for place, entry in enumerate(entries) if entry},
                "param_groups": self._adamw.state_dict()["param_groups"],
            }
        )
        for name, master in self._masters.items():
            master.copy_(state.weights[name])
        self.num_steps = state.num_steps
        self.discard()
        self._publish()

    def _check(self, state: OptimizerState) -> None:
        shapes = {name: master.shape for name, master in self._masters.items()}
        found = {name: weight.shape for name, weight in state.weights.items()}
        if shapes != found:
            wrong = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
            raise CheckpointError(
                f"the checkpoint belongs to another model: {len(wrong)} weights differ, e.g. {wrong[0]}"
            )
        wanted = {f"{name}/{key}" for name in shapes for key in ("step", "exp_avg", "exp_avg_sq")}
        if state.moments.keys() - wanted or (state.num_steps and not state.moments):
            raise CheckpointError("the optimizer state in the checkpoint does not fit its weights")

    def _moments_of(self, name: str, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prefix = f"{name}/"
        return {key.removeprefix(prefix): value.clone() for key, value in moments.items() if key.startswith(prefix)}

    @torch.no_grad()
    def _publish(self) -> None:
        for name, parameter in self._parameters.items():
            if self._masters[name] is not parameter:
                parameter.copy_(self._masters[name])


def _master_of(parameter: torch.nn.Parameter) -> Tensor:
    if parameter.dtype == torch.float32:
        return parameter
    return parameter.detach().float().requires_grad_()
