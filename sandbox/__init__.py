"""Runs untrusted Python in isolation and reports what it did. Imports nothing of `azr`; start with README.md."""

from sandbox.docker.backend import DockerExecutor
from sandbox.host.blocking import Blocking
from sandbox.host.container import ContainerLimits
from sandbox.jail.backend import JailExecutor
from sandbox.shared.values import (
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
