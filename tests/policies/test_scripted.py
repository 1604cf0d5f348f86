from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr.errors import CheckpointError
from azr.policies.base import Policy, Sampling
from azr.policies.scripted import END, STATE, ScriptedPolicy, completion
from azr.types import Cell, Completion, Role, TrainingSample

SAMPLE = TrainingSample(Cell(Role.SOLVER, "deduction"), (1,), (2, 3), (-0.5, -0.5), 1.0)


def drawn(
    policy: Policy, prompts: list[str], *, num_samples: int = 1, max_new_tokens: int = 99
) -> list[list[Completion]]:
    return asyncio.run(policy.generate(prompts, Sampling(1.0, 1.0, max_new_tokens, num_samples)))


def texts(groups: list[list[Completion]]) -> list[list[str]]:
    return [[one.text for one in group] for group in groups]


def test_the_script_answers_every_prompt() -> None:
    policy = ScriptedPolicy(str.upper)
    assert texts(drawn(policy, ["a", "bc"], num_samples=2)) == [["A", "A"], ["BC", "BC"]]
    assert policy.prompts == ["a", "bc"]


def test_a_mapping_is_a_script_too() -> None:
    assert texts(drawn(ScriptedPolicy({"a": "x"}), ["a"])) == [["x"]]


def test_several_replies_take_turns_within_a_group() -> None:
    assert texts(drawn(ScriptedPolicy({"a": ["x", "y"]}), ["a"], num_samples=3)) == [["x", "y", "x"]]


def test_tokens_are_the_bytes_of_the_reply_and_an_end() -> None:
    assert completion("p", "é") == Completion(
        text="é", prompt_ids=(112,), token_ids=(0xC3, 0xA9, END), sampling_logprobs=(0.0,) * 3, is_truncated=False
    )


@pytest.mark.parametrize(("limit", "text", "is_truncated"), [(4, "abc", False), (3, "abc", True), (1, "a", True)])
def test_the_token_limit_cuts_a_reply(limit: int, text: str, is_truncated: bool) -> None:
    ((one,),) = drawn(ScriptedPolicy({"p": "abc"}), ["p"], max_new_tokens=limit)
    assert (one.text, one.is_truncated, len(one.token_ids)) == (text, is_truncated, limit)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters()))
def test_any_text_can_be_a_reply(reply: str) -> None:
    assert completion("", reply).text == reply


def test_updates_are_remembered() -> None:
    policy = ScriptedPolicy({})
    assert asyncio.run(policy.update([SAMPLE, SAMPLE]))["tokens"] == 4
    assert policy.updates == [(SAMPLE, SAMPLE)]


def test_a_loaded_policy_counts_on(tmp_path: Path) -> None:
    policy, again = ScriptedPolicy({}), ScriptedPolicy({})
    asyncio.run(policy.update([SAMPLE]))
    policy.save(tmp_path)
    again.load(tmp_path)
    asyncio.run(again.update([SAMPLE]))
    assert again.num_updates == 2


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"num_updates": null}'])
def test_a_missing_or_damaged_checkpoint_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / STATE).write_text(text)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        ScriptedPolicy({}).load(tmp_path)


def test_prompts_are_counted_in_bytes() -> None:
    assert ScriptedPolicy({}).count_tokens("aé") == 3


def test_an_export_leaves_something_behind(tmp_path: Path) -> None:
    ScriptedPolicy({}).export(tmp_path)
    assert list(tmp_path.iterdir())


def test_scripts_advantages_and_statistics_need_no_torch() -> None:
    modules = "azr.policies.scripted, azr.policies.base, azr.rl.advantage, azr.rl.statistics"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
