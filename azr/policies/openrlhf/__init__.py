"""OpenRLHF as a policy: Ray, DeepSpeed and vLLM sample and learn, and our own loop drives them.

`launching` runs OpenRLHF's own command with one symbol replaced, its trainer class. The replacement is
`trainer.AZRTrainer`: its `fit` makes an `OpenRLHFPolicy` from OpenRLHF's engines and actors and passes it to the same
self-play loop that drives every other policy. Flags, placement, ZeRO, weight sync and checkpoints are OpenRLHF's own.

Before an upgrade of OpenRLHF, check `stock`: it declares every symbol that is used, and `tests/scale/test_contract.py`
compares the declarations with the real classes.
"""

STAGING = ".openrlhf-"
"""Prefix of the folder in the run directory from which OpenRLHF reads a checkpoint and to which it writes one."""

RAY_SETTINGS = {"RAY_process_group_cleanup_enabled": "1"}
"""Environment in which Ray starts. With this setting, the processes that a worker started end when it is killed;
otherwise vLLM's engine outlives its actor and keeps its memory."""
