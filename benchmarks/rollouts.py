"""Tokens per second of transformers and of vLLM on CPUs, for the same prompts: `python -m benchmarks.rollouts`.

Prints one JSON line per measurement. Each is made in a process of its own, because torch fixes its number of threads
when it starts and a process can hold only one vLLM engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast, get_args

from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from azr.config import LearnerConfig, ModelConfig, SamplingConfig, VllmConfig
from azr.errors import PolicyError
from azr.policies.base import Sampling
from azr.policies.loading import NANO_WEIGHTS
from azr.policies.local import LocalPolicy
from azr.policies.vllm.setup import vllm_sampler

Engine = Literal["transformers", "vllm"]
THREADS = (1, 2)
REPEATS = 3
NUM_PROMPTS, NUM_SAMPLES = 48, 6
"""A nano step's attempts: 3 x 16 tasks, 6 attempts each."""
SAMPLING = SamplingConfig(max_prompt_tokens=512, max_new_tokens=96, batch_size=128)
TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Size:
    """A model to measure with."""

    name: str
    hidden: int
    layers: int
    head_dim: int
    """0 takes the embedded weights instead of random ones."""


SIZES = (Size("nano", 128, 4, 0), Size("6M", 256, 7, 64), Size("25M", 512, 8, 64))


@dataclass(frozen=True, slots=True)
class Rate:
    """One engine, one model, one number of threads."""

    model: str
    parameters: int
    engine: Engine
    threads: int
    tokens_per_s: float
    """Median of the repeats."""
    low: float
    high: float
    tokens: int
    """Per repeat; sequences may end early."""
    start_s: float
    """Imports, model, engine and one short call."""
    load_1min: float


def main(names: Sequence[str]) -> None:
    """Measure the named models, or all of them."""
    for size in SIZES:
        if names and size.name not in names:
            continue
        with TemporaryDirectory() as folder:
            path = "nano" if not size.head_dim else str(write_model(size, Path(folder)))
            for threads in THREADS:
                for engine in get_args(Engine):
                    print(json.dumps(asdict(_in_process(size.name, path, engine, threads))), flush=True)


def write_model(size: Size, folder: Path) -> Path:
    """A Qwen3 with random weights and nano's tokenizer."""
    config = Qwen3Config(
        vocab_size=208, hidden_size=size.hidden, intermediate_size=3 * size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // size.head_dim, num_key_value_heads=size.hidden // size.head_dim,
        head_dim=size.head_dim, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(NANO_WEIGHTS)).save_pretrained(folder)
    return folder


def _in_process(name: str, path: str, engine: Engine, threads: int) -> Rate:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.rollouts", "--one", name, path, engine, str(threads)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S)
    if done.returncode:
        raise PolicyError(f"measuring {name} with {engine} failed: {done.stderr.strip()[-600:]}")
    return Rate(**json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, path: str, engine: Engine, threads: int) -> Rate:
    """In this process."""
    started = time.perf_counter()
    model = ModelConfig(path=path, device="cpu", dtype="float32", threads=threads)
    vllm = VllmConfig(max_sequences=SAMPLING.batch_size)
    make_sampler = vllm_sampler(model, SAMPLING, vllm) if engine == "vllm" else None
    policy = LocalPolicy(model, LearnerConfig(), SAMPLING, 0, make_sampler=make_sampler)
    generate_tokens(policy, num_prompts=2)
    start_s = time.perf_counter() - started
    rates: list[float] = []
    tokens: list[int] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        tokens.append(generate_tokens(policy, num_prompts=NUM_PROMPTS))
        rates.append(tokens[-1] / (time.perf_counter() - began))
    return Rate(
        model=name,
        parameters=policy.num_parameters,
        engine=engine,
        threads=threads,
        tokens_per_s=statistics.median(rates),
        low=min(rates),
        high=max(rates),
        tokens=round(statistics.mean(tokens)),
        start_s=start_s,
        load_1min=os.getloadavg()[0],
    )


def generate_tokens(policy: LocalPolicy, *, num_prompts: int) -> int:
    """Tokens that the policy drew after that many prompts."""
    how = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=SAMPLING.max_new_tokens, num_samples=NUM_SAMPLES)
    prompts = [
        f"def f(x, y):\n a=x[{place}:]\n b=sorted(y)\n return a+b+[{place}]\n" * 2 for place in range(num_prompts)
    ]
    groups = asyncio.run(policy.generate(prompts, how))
    return sum(len(completion.token_ids) for group in groups for completion in group)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _, _, name, path, engine, threads = sys.argv
        chosen: Engine = "vllm" if engine == "vllm" else "transformers"
        print(json.dumps(asdict(measure(name, path, chosen, int(threads)))))
    else:
        main(sys.argv[1:])
