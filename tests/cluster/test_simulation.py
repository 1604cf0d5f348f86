"""The simulated cluster against cases that can be worked out on paper."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from azr.cluster.simulation import Costs, Shape, jobs_per_s

FREE = Costs(0.0, 0.0, 0.0)


def seconds(shape: Shape, costs: Costs, services_s: list[float], num_jobs: int, seed: int = 0) -> float:
    return num_jobs / jobs_per_s(shape, costs, services_s, num_jobs, random.Random(seed))


@pytest.mark.parametrize(("workers", "containers", "jobs"), [(1, 1, 10), (1, 4, 10), (3, 4, 25), (8, 2, 16)])
def test_equal_jobs_take_as_many_rounds_as_they_do_not_fit(workers: int, containers: int, jobs: int) -> None:
    shape = Shape(workers, containers, jobs_in_flight=containers, chunk=1)
    assert seconds(shape, FREE, [2.0], jobs) == pytest.approx(2.0 * -(-jobs // (workers * containers)))


def test_exponential_jobs_on_k_containers_take_what_queueing_theory_says() -> None:
    """E[T] = ((N - K) / K + H_K) / mu: K at work until the last K, whose maximum has mean H_K / mu."""
    num_jobs, k = 200, 8
    rng = random.Random(1)
    services = [rng.expovariate(10.0) for _ in range(20_000)]
    shape = Shape(2, k // 2, jobs_in_flight=k // 2, chunk=1)
    expected = ((num_jobs - k) / k + sum(1 / n for n in range(1, k + 1))) / 10.0
    assert fmean(seconds(shape, FREE, services, num_jobs, seed) for seed in range(60)) == pytest.approx(
        expected, rel=0.03
    )


def test_a_trainer_that_is_the_bottleneck_sets_the_pace() -> None:
    costs = Costs(call_s=0.004, verdict_s=0.001, host_s=0.0)
    took = seconds(Shape(64, 16, chunk=4), costs, [1e-6], 4000)
    assert took == pytest.approx(4000 * (0.004 / 4 + 0.001), rel=0.01)


def test_a_workers_process_that_is_the_bottleneck_sets_the_pace() -> None:
    took = seconds(Shape(2, 32), Costs(0.0, 0.0, host_s=0.002), [1e-6], 2000)
    assert took == pytest.approx(2000 / 2 * 0.002, rel=0.01)


def test_jobs_that_wait_here_do_not_pile_up_at_one_worker() -> None:
    """Two workers, one container each, jobs of one second: balanced, though one job is in flight at each."""
    assert seconds(Shape(2, 1, jobs_in_flight=1, chunk=4), FREE, [1.0], 10) == pytest.approx(5.0)
