from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from azr.rl.batch import collate, micro_batches, split_rows
from tests.rl.builders import sample

quick = settings(max_examples=40, deadline=None)
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def test_the_action_mask_marks_the_positions_that_predict_the_completion() -> None:
    batch = collate([sample(2, 3), sample(3, 1)], [0, 1])
    assert batch.inputs_BT.tolist() == [[1, 2, 3, 4], [1, 2, 3, 0]]
    assert batch.targets_BT.tolist() == [[2, 3, 4, 5], [2, 3, 4, 0]]
    assert batch.action_mask_BT.tolist() == [[False, True, True, True], [False, False, True, False]]
    assert batch.num_actions == 4


def test_logprobs_and_advantages_stand_where_their_token_is_predicted() -> None:
    batch = collate([sample(2, 3, advantage=-0.5), sample(3, 1, advantage=2.0)], [0, 1])
    assert batch.sampling_logprobs_BT.tolist() == [[0, -1, -2, -3], [0, 0, -1, 0]]
    assert batch.advantages_BT.tolist() == [[0, -0.5, -0.5, -0.5], [0, 0, 2, 0]]


def test_masked_values_come_out_sample_by_sample() -> None:
    samples = [sample(1, 2), sample(3, 2), sample(2, 1)]
    batch = collate(samples, [2, 0, 1])
    expected = [token for row in batch.rows for token in samples[row].token_ids]
    assert batch.targets_BT[batch.action_mask_BT].tolist() == expected


def test_a_sample_longer_than_the_budget_has_a_micro_batch_of_its_own() -> None:
    assert split_rows([5, 50, 5], max_tokens=20) == [[1], [0, 2]]


def test_samples_of_one_length_keep_their_order() -> None:
    assert split_rows([4, 4, 9, 4, 4], max_tokens=9) == [[2], [0, 1], [3, 4]]


def test_no_samples_make_no_micro_batches() -> None:
    assert micro_batches([], max_tokens=10) == []


@quick
@given(LENGTHS, st.integers(1, 200))
def test_every_row_is_in_exactly_one_micro_batch(lengths: list[int], max_tokens: int) -> None:
    rows = [row for group in split_rows(lengths, max_tokens=max_tokens) for row in group]
    assert sorted(rows) == list(range(len(lengths)))


@quick
@given(LENGTHS, st.integers(1, 200))
def test_padded_size_stays_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    for group in split_rows(lengths, max_tokens=max_tokens):
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= max_tokens


@quick
@given(LENGTHS)
def test_the_longest_come_first_so_that_memory_runs_out_at_once_or_never(lengths: list[int]) -> None:
    rows = [row for group in split_rows(lengths, max_tokens=64) for row in group]
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)


def test_a_micro_batch_moves_as_a_whole() -> None:
    moved = collate([sample(2, 3)], [0]).to(torch.device("meta"))
    tensors = (moved.inputs_BT, moved.targets_BT, moved.action_mask_BT, moved.sampling_logprobs_BT, moved.advantages_BT)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
