"""For tests on machines without a GPU: OpenRLHF's actors and engines on CPUs.

Four things differ from a GPU: calls to `torch.cuda` do nothing; the device mesh is of CPUs; the weights reach vLLM in a
folder instead of over NCCL, because its CPU layers, packed when they are loaded, cannot take them tensor by tensor; a
prompt is read in one piece, because the draw after a mere piece is taken back, which a CPU's generator cannot do.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    ray: Any
    stock_actor: Any
    stock_engine: Any

    class ActorTrainer:
        """`ActorPPOTrainer`."""

        strategy: Any
        actor: Any
        tokenizer: Any
        vllm_engines: list[Any]

    class PolicyActor:
        """`PolicyModelActor`, without Ray's cover."""

        def init_model_from_pretrained(self, *args: Any, **kwargs: Any) -> Any: ...

    class RolloutActor:
        """`RolloutRayActor`, without Ray's cover."""

        llm: Any

        def _configure_vllm_env(self, version: Any, vllm: Any, full_determinism: bool) -> None: ...

else:
    import openrlhf.trainer.ray.ppo_actor as stock_actor
    import openrlhf.trainer.ray.vllm_engine as stock_engine
    import ray

    ActorTrainer = stock_actor.ActorPPOTrainer
    PolicyActor = stock_actor.PolicyModelActor.__ray_metadata__.modified_class
    RolloutActor = stock_engine.RolloutRayActor.__ray_metadata__.modified_class

SYNC_FOLDER = "AZR_TEST_SYNC_FOLDER"
HERE = Path(__file__).parent
ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "DS_ACCELERATOR": "cpu",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "standins")]),
}


class Cpu(str):
    """A device that also passes where its number is asked for, as in `f"cuda:{device}"`."""

    def __format__(self, spec: str) -> str:
        return "0"


def pretend_cuda() -> None:
    stock_deepspeed: Any = __import__("openrlhf.utils.deepspeed.deepspeed", fromlist=["deepspeed"])
    for name in ("set_device", "synchronize", "empty_cache"):  # a function each: torch's compiler tells them apart
        setattr(torch.cuda, name, lambda *args, **kwargs: None)  # pyright: ignore
    torch.cuda.current_device = lambda: Cpu("cpu")  # pyright: ignore[reportAttributeAccessIssue]  # what the tests need
    on_gpus = stock_deepspeed.init_device_mesh
    stock_deepspeed.init_device_mesh = lambda device, *args, **kwargs: on_gpus("cpu", *args, **kwargs)  # pyright: ignore
    torch.set_num_threads(1)


class CpuActorTrainer(ActorTrainer):
    """Writes the weights where the engines read them."""

    def _init_vllm_sync_group(self, backend: str) -> None:
        del backend

    def broadcast_to_vllm(self) -> None:
        folder = os.environ[SYNC_FOLDER]
        self.strategy.save_model(self.actor, self.tokenizer, folder)
        if torch.distributed.get_rank() == 0:
            ray.get([engine.reload_weights.remote(folder) for engine in self.vllm_engines])
        torch.distributed.barrier()


class CpuPolicyActor(PolicyActor):
    """A rank that trains."""

    def init_model_from_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        pretend_cuda()
        stock_actor.ActorPPOTrainer = CpuActorTrainer
        return super().init_model_from_pretrained(*args, **kwargs)


class CpuRolloutActor(RolloutActor):
    """A vLLM engine."""

    def _configure_vllm_env(self, version: Any, vllm: Any, full_determinism: bool) -> None:
        vllm.AsyncEngineArgs = partial(vllm.AsyncEngineArgs, enable_chunked_prefill=False)
        super()._configure_vllm_env(version, vllm, full_determinism)

    async def reload_weights(self, folder: str) -> None:
        await self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        await self.llm.reset_prefix_cache()


def install() -> None:
    """From now on this process starts CPU actors."""
    stock_actor.PolicyModelActor = ray.remote(num_gpus=1)(CpuPolicyActor)
    stock_engine.RolloutRayActor = ray.remote(CpuRolloutActor)
