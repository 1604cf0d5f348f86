"""For tests on machines without a GPU: OpenRLHF's actors and engines on CPUs.

Three things differ from a GPU: calls to `torch.cuda` do nothing, the device mesh is of CPUs, and the weights reach vLLM
through a folder instead of NCCL, which vLLM's CPU layers, packed when they are loaded, could not take tensor by tensor.
"""

from __future__ import annotations

import os
from pathlib import Path

import openrlhf.trainer.ray.ppo_actor as stock_actor
import openrlhf.trainer.ray.vllm_engine as stock_engine
import ray
import torch

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
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "standins")]),
}


class Cpu(str):
    """A device that also passes where its number is asked for, as in `f"cuda:{device}"`."""

    def __format__(self, spec: str) -> str:
        return "0"


def pretend_cuda() -> None:
    import openrlhf.utils.deepspeed.deepspeed as stock_deepspeed

    for name in ("set_device", "synchronize", "empty_cache"):  # a function each: torch's compiler tells them apart
        setattr(torch.cuda, name, lambda *args, **kwargs: None)
    torch.cuda.current_device = lambda: Cpu("cpu")
    on_gpus = stock_deepspeed.init_device_mesh
    stock_deepspeed.init_device_mesh = lambda device, *args, **kwargs: on_gpus("cpu", *args, **kwargs)
    torch.set_num_threads(1)


class CpuActorTrainer(stock_actor.ActorPPOTrainer):
    """Writes the weights where the engines read them."""

    def _init_vllm_sync_group(self, backend):
        del backend

    def broadcast_to_vllm(self):
        folder = os.environ[SYNC_FOLDER]
        self.strategy.save_model(self.actor, self.tokenizer, folder)
        if torch.distributed.get_rank() == 0:
            ray.get([engine.reload_weights.remote(folder) for engine in self.vllm_engines])
        torch.distributed.barrier()


class CpuPolicyActor(stock_actor.PolicyModelActor.__ray_metadata__.modified_class):
    """A rank that trains."""

    def init_model_from_pretrained(self, *args, **kwargs):
        pretend_cuda()
        stock_actor.ActorPPOTrainer = CpuActorTrainer
        return super().init_model_from_pretrained(*args, **kwargs)


class CpuRolloutActor(stock_engine.RolloutRayActor.__ray_metadata__.modified_class):
    """A vLLM engine. A prompt is read in one piece: a piece's draw is taken back, which a CPU's generator cannot do."""

    async def __init__(self, *args, **kwargs):
        await super().__init__(*args, enable_chunked_prefill=False, **kwargs)

    async def reload_weights(self, folder):
        await self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        await self.llm.reset_prefix_cache()

    def process_id(self):
        return os.getpid()


def install() -> None:
    """From now on this process starts CPU actors."""
    stock_actor.PolicyModelActor = ray.remote(num_gpus=1)(CpuPolicyActor)
    stock_engine.RolloutRayActor = ray.remote(CpuRolloutActor)
