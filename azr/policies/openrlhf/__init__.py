"""OpenRLHF as a policy: Ray, DeepSpeed and vLLM sample and learn, and the loop stays ours.

`launching` runs OpenRLHF's own command with one of its symbols replaced: the trainer. In the trainer's place stands
`trainer.AZRTrainer`, whose `fit` makes an `OpenRLHFPolicy` of OpenRLHF's engines and actors and hands it to the same
self-play loop that drives every other policy. So all flags, placement, ZeRO, weight sync and checkpoints are stock.

What an upgrade of OpenRLHF must be held against is in one place: `stock` declares every symbol that is touched, and
`tests/scale/test_contract.py` compares the declarations with the real classes.
"""

STAGING = ".openrlhf-"
"""Beginning of the name of a folder in the run directory that OpenRLHF reads a checkpoint from and writes one to."""

RAY_SETTINGS = {"RAY_process_group_cleanup_enabled": "1"}
"""Environment in which Ray starts: with a worker that is killed end the processes that it started. Without this, vLLM's
engine outlives its actor, and keeps its memory."""
