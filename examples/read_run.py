"""Read what a run wrote, with the standard library only: `python examples/read_run.py runs/nano-seed0`."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

BEST_PROPOSALS = """
    SELECT rollouts.step, rollouts.task_type, rollouts.reward, tasks.solve_rate, tasks.program
    FROM rollouts JOIN tasks ON tasks.rollout_id = rollouts.rollout_id
    WHERE rollouts.role = 'proposer' ORDER BY rollouts.reward DESC, rollouts.step LIMIT 3
"""


def main(run_dir: Path) -> None:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if "eval/mean" in line:
            print(f"step {line['step']:g}: held-out accuracy {line['eval/mean']:.3f}")
    with closing(sqlite3.connect(f"file:{run_dir / 'run.db'}?mode=ro", uri=True)) as database:
        [(num_executions,)] = database.execute("SELECT COUNT(*) FROM executions")
        print(f"{len(lines) - 1} steps, {num_executions} records in the audit log")
        for step, task_type, reward, solve_rate, program in database.execute(BEST_PROPOSALS):
            print(f"step {step}, {task_type}, reward {reward:g}, solve rate {solve_rate:g}: {program!a}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
