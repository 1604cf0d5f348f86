"""Every error that this package raises on purpose.

::

    AzrError                     our fault or the environment's; the CLI prints it as one paragraph
    ├── ConfigError              a config file or override that cannot be used
    ├── PolicyError              a model that cannot be loaded, sampled or updated
    ├── RunError                 a run directory that cannot be written, read or resumed
    │   └── CheckpointError      a checkpoint that is missing or damaged
    ├── PluginError              a task type that does not resolve
    └── InputError               a file of JSON lines, seeds or benchmark tasks that cannot be read
    ModelFault                   the model's fault; caught in one place, where it becomes an `Outcome`
    ├── Malformed                the reply cannot be read
    └── Rejected                 the proposal was read but is not a fair task

Sandbox errors have their own tree in `sandbox.types` (`SandboxError`). They never count as a wrong answer.
"""

from __future__ import annotations


class AzrError(Exception):
    """Base of the errors that reach the user; the message says what to do."""


class ConfigError(AzrError):
    """A config file or override cannot be used; the message names the key and the most similar known key."""

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key
        """The key at fault, from which the caller finds the line; empty if no single key is."""


class PolicyError(AzrError):
    """A model cannot be loaded, sampled from or updated."""


class RunError(AzrError):
    """A run directory cannot be written, read or resumed."""


class CheckpointError(RunError):
    """A checkpoint is missing or damaged."""


class PluginError(AzrError):
    """A task type's name does not resolve."""


class InputError(AzrError):
    """A file of JSON lines, seed triplets or benchmark tasks cannot be read."""


class ModelFault(Exception):
    """The policy's completion is at fault; `reason` becomes the outcome's reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Malformed(ModelFault):
    """The reply cannot be read."""


class Rejected(ModelFault):
    """The proposal was read but is not a fair task."""
