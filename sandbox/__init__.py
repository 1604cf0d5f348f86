"""Runs untrusted Python in isolation and says what became of it. Imports nothing of `azr`; README.md is the way in."""

from sandbox.blocking import Blocking
from sandbox.container import ContainerLimits
from sandbox.docker import DockerExecutor
from sandbox.jail import JailExecutor
from sandbox.types import (
    EngineUnavailable,
    Execution,
    Executor,
    ImageMissing,
    Isolation,
    Job,
    Limits,
    RunResult,
    SandboxBroken,
    SandboxError,
    Status,
)
from sandbox.values import (
    Arguments,
    NotAValue,
    NotCanonical,
    arguments_text,
    decode,
    decode_arguments,
    encode,
    same,
    same_text,
)

__all__ = [
    "Arguments",
    "Blocking",
    "ContainerLimits",
    "DockerExecutor",
    "EngineUnavailable",
    "Execution",
    "Executor",
    "ImageMissing",
    "Isolation",
    "JailExecutor",
    "Job",
    "Limits",
    "NotAValue",
    "NotCanonical",
    "RunResult",
    "SandboxBroken",
    "SandboxError",
    "Status",
    "arguments_text",
    "decode",
    "decode_arguments",
    "encode",
    "same",
    "same_text",
]
