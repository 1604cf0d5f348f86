"""Every symbol of OpenRLHF 0.11.2, Ray and vLLM that this package uses, declared as far as it relies on it.

Type checkers see the declarations; a running program imports the real symbols.

======================  ===========================================================================================
symbol                  relied upon
======================  ===========================================================================================
`PPOTrainer`            `openrlhf.cli.train_ppo_ray.train` imports it from `trainer.ppo_trainer` when it runs, makes it
                        with `.remote(model, strategy, actors, critic, reward, reference, engines, **sampling)`, asks
                        `get_max_steps` and `fit` of it: the one symbol that is replaced
`BasePPOTrainer`        the constructor; `train_step` makes experiences, trains and syncs; `broadcast_to_vllm`
`RemoteExperienceMaker` `make_experience_batch` calls `compute_advantages_and_returns` last: overridden
`Experience`            the fields given here; every sample has the same `info` keys, each a tensor of its batch's size
`RayActorGroup`         `async_run_method` runs a method on all ranks; of `PolicyModelActor`: `save_checkpoint`,
                        `get_checkpoint_states`, `save_model`; its files go to `ckpt.path` and `ckpt.output_dir`
`RolloutRayActor`       `generate` gives the last `RequestOutput`; `sleep`, `wake_up`
`get_tokenizer`         pads on the left; the ids of a text are those of the plain tokenizer
======================  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor


class Arguments(Protocol):
    """OpenRLHF's parsed command line: `--rollout.batch_size 8` is `arguments.rollout.batch_size`."""

    def __getattr__(self, name: str, /) -> Any: ...


class Strategy(Protocol):
    """How the actors are distributed."""

    args: Arguments


class Tokenizer(Protocol):
    """A tokenizer of `transformers`."""

    eos_token_id: int | None

    def __call__(self, texts: list[str], /) -> Mapping[str, list[list[int]]]: ...

    def decode(self, token_ids: list[int], /, *, clean_up_tokenization_spaces: bool) -> str: ...


class Remote(Protocol):
    """A method of a Ray actor."""

    def remote(self, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...


class RolloutRayActor(Protocol):
    """One vLLM engine."""

    generate: Remote
    sleep: Remote
    wake_up: Remote


class RayActorGroup(Protocol):
    """The ranks that train."""

    def async_run_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Awaitable[Any]]: ...


class Ray(Protocol):
    """The module `ray`."""

    def is_initialized(self) -> bool: ...

    def init(self, address: str, *, log_to_driver: bool, runtime_env: Mapping[str, Mapping[str, str]]) -> object: ...

    def cluster_resources(self) -> Mapping[str, float]: ...

    def shutdown(self) -> None: ...

    def remote(self, cls: type, /) -> Any: ...

    def get_runtime_context(self) -> Any: ...


class TrainerModule(Protocol):
    """The module `openrlhf.trainer.ppo_trainer`."""

    PPOTrainer: object


class SampledText(Protocol):
    """One completion as vLLM gives it."""

    token_ids: list[int]
    finish_reason: str
    logprobs: SampledLogprobs


class SampledLogprobs(Protocol):
    """One logprob per sampled token (`flat_logprobs`, `logprobs = 0`)."""

    logprobs: list[float]


class RequestOutput(Protocol):
    """All completions of one prompt."""

    outputs: list[SampledText]


if TYPE_CHECKING:

    class Experience:
        """Training samples as tensors: `B` samples of `T` tokens, `T - 1` of them predicted."""

        sequences: Tensor
        action_mask: Tensor
        action_log_probs: Tensor
        rollout_log_probs: Tensor
        advantages: Tensor
        returns: Tensor
        kl: Tensor | None
        labels: list[str]
        info: dict[str, Tensor]

        def __init__(self, **fields: Tensor | list[str] | dict[str, Tensor]) -> None: ...

    class RemoteExperienceMaker:
        """Recomputes logprobs with the model that trains."""

        args: Arguments

        def __init__(
            self,
            actor_model_group: RayActorGroup,
            critic_model_group: None,
            reward_model_group: None,
            initial_model_group: RayActorGroup | None,
            kl_controller: object,
            strategy: Strategy,
            tokenizer: Tokenizer,
        ) -> None: ...

        def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]: ...

    class BasePPOTrainer:
        """The controller of one run."""

        args: Arguments
        tokenizer: Tokenizer
        vllm_engines: Sequence[RolloutRayActor]
        actor_model_group: RayActorGroup
        experience_maker: RemoteExperienceMaker
        kl_ctl: object

        def __init__(
            self,
            strategy: Strategy,
            actor_model_group: RayActorGroup,
            critic_model_group: None,
            reward_model_group: None,
            reference_model_group: RayActorGroup | None,
            vllm_engines: Sequence[RolloutRayActor],
            tokenizer: Tokenizer,
        ) -> None: ...

        def train_step(self, rollout_samples: list[Experience], global_step: int) -> tuple[dict[str, Any], int]: ...

        def broadcast_to_vllm(self) -> None: ...

    class RayError(Exception):
        """Anything that went wrong in another process."""

    class RayTaskError(RayError):
        """An exception that another process raised."""

        cause: BaseException

    class NodeAffinitySchedulingStrategy:
        """The node on which an actor runs."""

        def __init__(self, node_id: str, soft: bool) -> None: ...

    ray: Ray
    ppo_trainer: TrainerModule

    class SamplingParams:
        """How vLLM samples for one prompt."""

        def __init__(self, **settings: object) -> None: ...

    class RequestOutputKind:
        """Whether vLLM sends partial answers or only the final one."""

        FINAL_ONLY: int

    def get_tokenizer(
        pretrain: str, model: None, padding_side: str, strategy: Strategy, use_fast: bool
    ) -> Tokenizer: ...

    def wait_for(references: Sequence[Awaitable[Any]]) -> list[Any]: ...

else:
    import ray
    from openrlhf.trainer import ppo_trainer
    from openrlhf.trainer.ppo_trainer import BasePPOTrainer
    from openrlhf.trainer.ppo_utils.experience import Experience
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.utils.utils import get_tokenizer
    from ray import get as wait_for
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

__all__ = [
    "Arguments",
    "BasePPOTrainer",
    "Experience",
    "NodeAffinitySchedulingStrategy",
    "Ray",
    "RayActorGroup",
    "RayError",
    "RayTaskError",
    "Remote",
    "RemoteExperienceMaker",
    "RequestOutput",
    "RequestOutputKind",
    "RolloutRayActor",
    "SampledLogprobs",
    "SampledText",
    "SamplingParams",
    "Strategy",
    "Tokenizer",
    "TrainerModule",
    "get_tokenizer",
    "ppo_trainer",
    "ray",
    "wait_for",
]
