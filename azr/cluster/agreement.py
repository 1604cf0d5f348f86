"""Whether a worker stands between program and host as the others do. The kernels may differ, as patched nodes' do."""

from __future__ import annotations

from azr.cluster.base import Worker, WorkersDiffer
from sandbox.types import Isolation

MUST_AGREE = ("backend", "runtime", "image", "seccomp", "python", "hash_seeds")


def require_agreement(worker: Worker, others: Isolation) -> None:
    """
    Raises:
        WorkersDiffer: the worker's isolation is another than the others'.
    """
    there = worker.isolation
    differing = [
        f"{name} is {getattr(there, name)!r}, elsewhere {getattr(others, name)!r}"
        for name in MUST_AGREE
        if getattr(there, name) != getattr(others, name)
    ]
    if differing:
        raise WorkersDiffer(
            f"the sandbox worker {worker.name} on node {worker.node.host} differs from the others: "
            f"{'; '.join(differing)}. Install the same version of azr there and run `azr image build`"
        )
