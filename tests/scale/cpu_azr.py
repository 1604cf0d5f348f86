"""`azr` on a machine without a GPU: `python tests/scale/cpu_azr.py FOLDER train CONFIG ...`.

FOLDER is for the weights on their way to vLLM.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    folder, *words = sys.argv[1:]
    start(folder)
    sys.argv = ["azr", *words]
    from azr.cli import main as azr

    azr()


def start(folder: str) -> None:
    """Ray, with two GPUs that are not there, and the shim."""
    from pathlib import Path

    here = Path(__file__).parent
    sys.path[:0] = [str(here), str(here / "standins")]
    import cpu_shim

    from azr.policies.openrlhf import RAY_SETTINGS

    os.environ.update({**RAY_SETTINGS, **cpu_shim.ENVIRONMENT, cpu_shim.SYNC_FOLDER: folder})
    import ray  # pyright: ignore[reportMissingImports]  # of the other environment

    environment = {**cpu_shim.ENVIRONMENT, cpu_shim.SYNC_FOLDER: folder}
    ray.init(
        "local",
        num_cpus=6,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        runtime_env={"env_vars": environment},
    )
    cpu_shim.install()


if __name__ == "__main__":
    main()
