"""Which GPU does what."""

from __future__ import annotations

from typing import Any

import pytest

from azr.errors import ConfigError
from azr.sizing.topology import flatten
from tests.sizing.builders import colocated, spread, topology


def test_tables_become_dotted_names() -> None:
    assert dict(flatten({"actor": {"adam": {"lr": 1}, "num_nodes": 2}, "use_ms": True})) == {
        "actor.adam.lr": 1,
        "actor.num_nodes": 2,
        "use_ms": True,
    }


def test_engines_apart_have_gpus_of_their_own() -> None:
    assert topology(spread()).gpus(has_reference=False) == 8
    assert topology(spread(vllm={"num_engines": 2, "tensor_parallel_size": 2})).gpus(has_reference=False) == 8


def test_colocated_engines_share_the_learner_s() -> None:
    assert topology(colocated(4)).gpus(has_reference=True) == 4


def test_a_reference_model_has_the_learner_s_number_of_gpus_unless_it_says_otherwise_or_shares_them() -> None:
    assert topology(spread()).gpus(has_reference=True) == 12
    assert topology(spread(ref={"num_gpus_per_node": 1})).gpus(has_reference=True) == 9
    assert topology(spread(train={"colocate_actor_ref": True})).gpus(has_reference=True) == 8


def test_ranks_of_a_ring_or_of_tensor_parallelism_see_the_same_samples() -> None:
    assert topology(spread()).copies == 4
    assert topology(spread(ds={"ring_attn_size": 2})).copies == 2
    assert topology(spread(ds={"tensor_parallel_size": 4})).copies == 1


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"ds": {"zero_stage": 4}}, "openrlhf.ds.zero_stage"),
        ({"vllm": {"gpu_memory_utilization": 1.5}}, "openrlhf.vllm.gpu_memory_utilization"),
        ({"actor": {"num_nodes": "two"}}, "openrlhf.actor.num_nodes"),
        ({"train": {"colocate_all": "yes"}}, "openrlhf.train.colocate_all"),
    ],
)
def test_a_value_of_another_type_or_range_names_its_key(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        topology(spread(**table))
    assert caught.value.key == key
