"""Play one step of self-play without a model: `python examples/scripted_step.py`.

A script takes the place of the policy. It proposes one program, and it answers 7, which is right for that program. So
the solve rate is 1, and `learnable` is 0: the task is too easy to learn from. Needs a Docker engine and the sandbox
image (`make image`).
"""

from __future__ import annotations

import asyncio

from azr.build import make_executor, make_game, make_types
from azr.config import Config
from azr.policies.scripted import ScriptedPolicy
from azr.selfplay.absolute_zero import play_step

CONFIG = Config.model_validate(
    {
        "tasks": {"types": ["deduction"]},
        "selfplay": {"proposals_per_type": 1, "group_size": 4},
    }
)
PROPOSAL = "It adds.</think><answer>```python\ndef f(x):\n    return x + 4\n```\n```input\n3\n```</answer>"
ANSWER = "3 + 4 is 7.</think><answer>```output\n7\n```</answer>"


def reply(prompt: str) -> str:
    """What the policy would have written. A solve prompt shows the program; a propose prompt does not."""
    return ANSWER if "x + 4" in prompt else PROPOSAL


async def main() -> None:
    task_types = make_types(CONFIG)
    async with make_executor(CONFIG.sandbox) as executor:
        game = make_game(CONFIG, policy=ScriptedPolicy(reply), executor=executor, task_types=task_types, held_out=[])
        for task_type in task_types.values():
            game.buffer.add(task_type.seed_task())
        played = await play_step(game)
    for name, value in sorted(played.metrics.items()):
        if not name.startswith("time/"):
            print(f"{name:32} {value:g}")
    [pool] = game.buffer.pools.values()
    print(f"tasks in the buffer: {len(pool)}")


if __name__ == "__main__":
    asyncio.run(main())
