"""Every knob of a run: one frozen tree, built once. The paper's values are the defaults.

`azr.configfile` reads it from TOML. Nothing else in the package has defaults for these things.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sandbox.types import Limits

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]

PAPER_FORBIDDEN = (
    "logging", "random", "multiprocessing", "pebble", "subprocess", "threading", "datetime", "time", "hashlib", "hmac",
    "bcrypt", "os.sys", "os.path", "sys.exit", "os.environ", "calendar",
)  # fmt: skip
"""The official list (azr.data_selection_strategy.banned_words), its repeated entry once."""


def _off_or_at_least_one(cap: float) -> float:
    if cap != 0 and cap < 1:
        raise ValueError(f"{cap} would scale down every token; give 1 or more, or 0 to switch the correction off")
    return cap


class Section(BaseModel):
    """A frozen table that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraConfig(Section):
    """Low-rank adapters (peft). `rank = 0` trains all weights."""

    rank: Annotated[int, Field(ge=0)] = 0
    alpha: Positive = 32
    dropout: Share = 0.0
    target_modules: tuple[str, ...] = ()
    """Module names; empty takes every linear layer but the head."""


class ModelConfig(Section):
    """Which language model is trained and how it sits in memory."""

    path: str = "nano"
    """`nano` (the embedded model), a folder, or a hub name that `transformers` can load."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for torch; 0 leaves torch's own choice."""
    gradient_checkpointing: bool = True
    lora: LoraConfig = LoraConfig()


class PolicyConfig(Section):
    """Who samples and who learns."""

    kind: Literal["local", "openrlhf"] = "local"
    """`local`: torch in this process. `openrlhf`: Ray, DeepSpeed and vLLM, set up by the table `[openrlhf]`."""
    rollouts: Literal["transformers", "vllm"] = "transformers"
    """What the local policy generates with; `vllm` is set up by the table `[vllm]`."""


class VllmConfig(Section):
    """vLLM in this process, beside the local learner."""

    tensor_parallel: Positive = 1
    """GPUs that one copy of the model is spread over."""
    memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.45
    """Share of a GPU's memory for weights and KV cache together (vLLM's `gpu_memory_utilization`)."""
    cpu_cache_gib: Positive = 1
    """KV cache where there is no GPU."""
    max_sequences: Positive = 256
    """Sequences that are generated at once."""
    sleep: bool = True
    """Free the GPU's memory for the learner during the update."""
    enforce_eager: bool = False
    """Start faster and generate slower: no CUDA graphs, no compilation."""


class SamplingConfig(Section):
    """How completions are drawn in training."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_prompt_tokens: Positive = 6144
    """A longer prompt is not asked: a propose prompt is dropped, a task with a longer solve prompt is rejected."""
    max_new_tokens: Positive = 8096
    batch_size: Positive = 64
    """Sequences that the local policy generates at once."""


class TasksConfig(Section):
    """Which task types are played and what makes a proposal fair."""

    types: Annotated[tuple[str, ...], Field(min_length=1)] = ("deduction", "abduction", "induction")
    prompts: str = "azr"
    """Prompt set: a folder of `prompts/`, or a path to a folder of your own."""
    equality: Literal["python", "strict"] = "python"
    """`python`: `==`, with nan equal to nan. `strict`: types must agree too."""
    induction_inputs: Annotated[int, Field(ge=2)] = 10
    """N inputs that an induction proposal gives; half are shown to the solver, half are hidden."""
    max_program_chars: Positive = 8192
    max_message_chars: Positive = 2048
    forbidden_modules: tuple[str, ...] = PAPER_FORBIDDEN
    """Refused by the static check and listed in the prompts; hygiene for task quality, not the boundary."""
    require_input: bool = True
    """Reject programs whose entry takes no argument."""


class SelfplayConfig(Section):
    """One step of the game."""

    proposals_per_type: Positive = 64
    """B: proposals a type and step, and solver rollouts a type and step."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """n: attempts whose solve rate makes the proposer's reward."""
    references: Annotated[int, Field(ge=0)] = 6
    """K: past tasks shown to the proposer of a deduction or abduction task."""
    solver_batch: Literal["separate", "attempts"] = "separate"
    """`separate`: one fresh completion a task trains the solver (paper). `attempts`: the attempts train it as well."""
    unlearnable_reward: Annotated[float, Field(ge=-1, le=0)] = 0.0
    """Reward of a valid proposal whose solve rate is 0 or 1: 0.0 is the paper's equation, -0.5 the official code."""
    duplicates: Literal["off", "zero", "rejected"] = "off"
    """A proposal that the buffer holds already: treated as any other, rewarded 0, or rejected."""
    train_proposer: bool = True
    """False is the solver-only ablation: proposals are made but not trained on."""
    overlap: bool = False
    """Attempt a task once the gate has accepted it, while others are still proposed: the same game in less time, with
    other random numbers. Pays with vLLM and OpenRLHF."""


class BufferConfig(Section):
    """The pools of accepted tasks."""

    capacity: Positive = 16_384
    """Tasks kept a type; the oldest leave first."""


class SeedingConfig(Section):
    """Where the first tasks come from."""

    files: tuple[str, ...] = ()
    """Preset seed triplets (official JSON lines form); empty lets the base model propose from the identity triplet."""
    tasks_per_type: Positive = 256
    max_rounds: Positive = 40
    """Rounds of proposals after which seeding goes on with what it has."""


class AdvantageConfig(Section):
    """How rewards become advantages."""

    estimator: Literal["trr++", "trr++-tokens", "reinforce++", "grpo", "rloo"] = "trr++"
    """`trr++`: a baseline a cell (paper, equation 8). `trr++-tokens`: the same weighted by length (official code)."""


class LearnerConfig(Section):
    """One optimizer update (AdamW, constant rate)."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    updates_per_step: Positive = 1
    """Minibatches that a step's samples are split into, one optimizer step each; 1 is fully on-policy."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    dual_clip: Annotated[float, Field(gt=1)] = 3.0
    entropy_coef: NonNegative = 0.001
    importance_cap: Annotated[float, AfterValidator(_off_or_at_least_one)] = 2.0
    """Upper bound of the weight that corrects for a sampler other than the learner (vLLM); 0 switches it off."""
    kl_coef: NonNegative = 0.0
    """Weight of the KL divergence to the frozen start model; 0 loads no reference."""
    micro_batch_tokens: Positive = 16_384
    """Tokens, padding included, in one forward and backward pass."""


class SandboxConfig(Section):
    """The executor."""

    backend: Literal["docker", "jail"] = "docker"
    """`jail`: bubblewrap, for hosts without a Docker engine."""
    image: str = "azr-sandbox"
    """Image name; `azr image build` makes the default one from this machine's Python."""
    runtime: str = ""
    """Docker runtime (`runsc` for gVisor); empty takes the engine's default."""
    jail_cgroup: Literal["required", "none"] = "required"
    """`none`: run jails where no control group can be made; memory is then bounded per process only."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Containers or jails per hash seed; 0 takes one per two cores, at least one."""
    wall_s: Annotated[float, Field(gt=0)] = Limits().wall_s
    cpu_s: Annotated[float, Field(gt=0)] = Limits().cpu_s
    memory_mib: Positive = Limits().memory_mib
    output_bytes: Positive = Limits().output_bytes
    processes: Positive = Limits().processes
    open_files: Positive = Limits().open_files

    def limits(self) -> Limits:
        return Limits(**self.model_dump(include={field.name for field in fields(Limits)}))


class ClusterConfig(Section):
    """Ray: where it is, and the sandboxes that run on its nodes. Used by `policy.kind = "openrlhf"`."""

    address: str = ""
    """`auto` or an address joins a running cluster; empty starts Ray on this machine for the run."""
    gpu_memory_gib: NonNegative = 0.0
    """Memory of one GPU, for the calculation before Ray starts; 0 asks a GPU of this machine, if it has one."""
    sandboxes_per_node: Annotated[int, Field(ge=0)] = 1
    """Sandbox workers on every node, each with `sandbox.workers` containers or jails; 0: only in the trainer."""
    cpus_per_sandbox: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray sets aside for one worker."""
    jobs_in_flight: Positive = 64
    """Jobs that one worker is given before it has answered; the rest wait here."""


class EvaluationConfig(Section):
    """Held-out accuracy during training."""

    tasks: str = ""
    """`nano` (the embedded held-out set), or JSON lines of tasks in the form of `azr verify`; empty: no evaluation."""
    every: Annotated[int, Field(ge=0)] = 10
    """Steps between evaluations, beside the first and the last; 0 keeps only these two."""
    tasks_per_type: Annotated[int, Field(ge=0)] = 0
    """How many of the set during training, a type; 0 takes all. The first and the last evaluation always take all."""


class CheckpointConfig(Section):
    """What a run keeps to go on from."""

    every: Positive = 10
    keep: Positive = 2
    """Checkpoints kept; at least the one before the newest is wanted in case the newest is damaged."""


class SinksConfig(Section):
    """Where metrics go beside `metrics.jsonl`."""

    tensorboard: bool = False
    wandb: bool = False
    wandb_project: str = "azr"


class Config(Section):
    """A whole run."""

    seed: Annotated[int, Field(ge=0)] = 0
    steps: Positive = 500
    policy: PolicyConfig = PolicyConfig()
    model: ModelConfig = ModelConfig()
    vllm: VllmConfig = VllmConfig()
    openrlhf: dict[str, Any] = {}
    """Flags of OpenRLHF's own command, as tables: `[openrlhf.actor]` with `num_nodes = 2` is `--actor.num_nodes 2`."""
    cluster: ClusterConfig = ClusterConfig()
    sampling: SamplingConfig = SamplingConfig()
    tasks: TasksConfig = TasksConfig()
    selfplay: SelfplayConfig = SelfplayConfig()
    buffer: BufferConfig = BufferConfig()
    seeding: SeedingConfig = SeedingConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    learner: LearnerConfig = LearnerConfig()
    sandbox: SandboxConfig = SandboxConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    sinks: SinksConfig = SinksConfig()
