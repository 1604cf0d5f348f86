"""The whole thing on OpenRLHF: real Ray, real DeepSpeed, a real vLLM engine, the real sandbox, nano; on CPUs."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from azr.build import make_policy
from azr.config import Config
from azr.configfile import load
from azr.policies.base import Policy
from azr.runs.metrics import read
from azr.runs.relay import Relay
from azr.training.run import train_run
from tests.scale.lab import PROMPTS, ROOT, SMALL, Replayed

HERE = Path(__file__).parent
CONFIG = ROOT / "configs" / "openrlhf-nano.toml"
BF16 = 0.02
"""How far bfloat16 may be from float32 where the numbers are of size 1."""
START_S, END_S = 600, 600
pytestmark = [pytest.mark.ray, pytest.mark.docker, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def sync_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sync")


def local_config(*overrides: str) -> Config:
    return load(CONFIG, [*SMALL, "policy.kind='local'", "model.dtype='float32'", "model.threads=1", *overrides])


# What the policy does, seen from inside its process.


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, sync_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("lab")
    command = [sys.executable, str(HERE / "lab.py"), str(sync_folder), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=END_S)
    assert done.returncode == 0, done.stderr[-3000:] + (out / "log.txt").read_text()[-3000:]
    return out


@pytest.fixture(scope="module")
def found(lab: Path) -> dict[str, Any]:
    return json.loads((lab / "found.json").read_text(encoding="utf-8"))


def test_a_completion_is_what_the_local_policy_would_make_of_the_same_tokens(found: dict[str, Any]) -> None:
    local: Any = make_policy(local_config())
    tokenizer = local._loaded.tokenizer
    for prompt, group in zip(PROMPTS, found["again"][0], strict=True):
        assert len(group) == 2
        for one in group:
            assert one["prompt_ids"] == tokenizer([prompt])["input_ids"][0]
            tokens = one["token_ids"] if one["is_truncated"] else one["token_ids"][:-1]
            assert one["is_truncated"] or one["token_ids"][-1] == tokenizer.eos_token_id
            assert one["text"] == tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
            assert len(one["sampling_logprobs"]) == len(one["token_ids"])


def test_a_stream_is_drawn_alike_every_time(found: dict[str, Any]) -> None:
    first, second = ([[one["token_ids"] for one in group] for group in groups] for groups in found["again"])
    assert first == second
    assert any(one != other for one, other in first)


@pytest.mark.parametrize(("when", "model"), [("before", "nano"), ("after", "exported")])
def test_the_engine_samples_from_the_weights_that_the_learner_has(
    lab: Path, found: dict[str, Any], when: str, model: str
) -> None:
    folder = "nano" if model == "nano" else str(lab / "run" / "model")
    gaps = [gap for group in found[when] for gap in logprob_gaps(folder, group[0])]
    assert math.fsum(gaps) / len(gaps) < BF16


def logprob_gaps(folder: str, one: dict[str, Any]) -> list[float]:
    """|logprob by the engine - logprob by transformers, in float32| of every token."""
    import torch
    from transformers import AutoModelForCausalLM

    from azr.policies.loading import resolve_path

    model: Any = AutoModelForCausalLM.from_pretrained(resolve_path(folder), dtype=torch.float32)
    ids = [*one["prompt_ids"], *one["token_ids"]]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, len(one["prompt_ids"]) - 1 : -1]
    said = zip(logits.log_softmax(-1), one["token_ids"], one["sampling_logprobs"], strict=True)
    return [abs(float(row[token]) - logprob) for row, token, logprob in said]


def test_an_update_changes_what_is_sampled_from(found: dict[str, Any]) -> None:
    def logprobs(when: str) -> list[float]:
        return [value for group in found[when] for value in group[0]["sampling_logprobs"]]

    assert logprobs("before") != logprobs("after")


def test_the_first_step_is_the_local_one(lab: Path, tmp_path: Path) -> None:
    """The same completions: rewards and advantages equal to the bit, loss and gradient within bfloat16."""
    calls = json.loads((lab / "calls.json").read_text(encoding="utf-8"))
    config = local_config()

    def replayed() -> Policy:
        policy: Any = Replayed(make_policy(config), calls)
        return policy

    def watch(history: object) -> Relay:
        del history
        return Relay(tmp_path / "progress.jsonl")

    asyncio.run(train_run(config, tmp_path / "run", resume=False, load_policy=replayed, watch=watch))
    theirs, ours = (read(folder / "run" / "metrics.jsonl")[1] for folder in (lab, tmp_path))
    exact = [key for key in ours if key.startswith(("propose/", "solve/", "advantage/", "buffer/", "tokens/"))]
    assert len(exact) > 20
    assert {key: theirs[key] for key in exact} == {key: ours[key] for key in exact}
    assert theirs["learner/loss"] == pytest.approx(ours["learner/loss"], abs=BF16)
    assert theirs["learner/entropy"] == pytest.approx(ours["learner/entropy"], rel=0.1)  # estimated from 755 tokens
    assert theirs["learner/grad_norm"] == pytest.approx(ours["learner/grad_norm"], rel=5 * BF16)
    assert theirs["learner/learning_rate"] == ours["learner/learning_rate"]
    assert theirs["learner/tokens"] == ours["learner/tokens"]
    assert theirs["learner/sampler_kl"] < 1e-3


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("empty", "PolicyError: a prompt of 0 tokens cannot be continued"),
        ("long", "PolicyError: a prompt of 600 tokens cannot be continued; at most 511 can"),
        ("nothing to learn", "PolicyError: an update needs at least one sample"),
        ("too much to learn", "training samples do not fit a batch of 48"),
        ("load", "CheckpointError: OpenRLHF did not start from"),
    ],
)
def test_a_mistake_is_said_in_our_words(found: dict[str, Any], mistake: str, said: str) -> None:
    assert said in found["refused"][mistake]


# A run from the command line, and what may happen to it.


def start(sync: Path, folder: Path, *extra: str) -> subprocess.Popen[str]:
    overrides = [part for setting in SMALL[1:] for part in ("--set", setting)]
    command = [sys.executable, str(HERE / "cpu_azr.py"), str(sync), "train", str(CONFIG), "--run-dir", str(folder)]
    return subprocess.Popen(
        [*command, "--steps", "9", *overrides, *extra],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[Any]:
    """All processes below this one, as `psutil` knows them."""
    psutil: Any = importlib.import_module("psutil")  # comes with Ray
    return psutil.Process(pid).children(recursive=True)


def named(process: Any) -> str:
    """A Ray worker's command line begins with what it is."""
    return " ".join(process.cmdline())


def ours(process: subprocess.Popen[str]) -> list[Any]:
    """All below it but Ray's own agents, which take their time."""
    return [one for one in descendants(process.pid) if "Agent" not in named(one)]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoint_of(folder: Path, step: int) -> Callable[[], bool]:
    return (folder / "checkpoints" / f"step-{step:06d}" / "manifest.json").is_file


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=END_S)
    return " ".join(said.split())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, sync_folder: Path) -> dict[str, Any]:
    """One run: its engine is killed, then the whole of it in the middle of a step, then it is interrupted."""
    folder = tmp_path_factory.mktemp("story") / "run"
    told: dict[str, Any] = {"folder": folder}
    with start(sync_folder, folder) as process:
        wait_until(checkpoint_of(folder, 1), process)
        below = {named(one): one for one in descendants(process.pid)}
        engines = [name for name in below if "RolloutRayActor" in name]
        assert engines, sorted(below)
        everything = ours(process)
        below[engines[0]].kill()
        told["engine lost"] = process.wait(END_S), ended(process)
        wait_gone(everything)
    with start(sync_folder, folder, "--resume") as process:
        told["resumed from"] = newest(folder)
        wait_until(checkpoint_of(folder, told["resumed from"] + 1), process)
        everything = ours(process)
        time.sleep(1)  # into the next step
        process.kill()
        wait_gone(everything)
    told["killed after"] = newest(folder)
    with start(sync_folder, folder, "--resume") as process:
        wait_until(checkpoint_of(folder, told["killed after"] + 1), process)
        process.send_signal(signal.SIGINT)
        told["interrupted"] = ended(process), process.returncode
    return told


def newest(folder: Path) -> int:
    return max(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))


def wait_gone(processes: list[Any]) -> None:
    deadline = time.monotonic() + 60
    while left := [one for one in processes if one.is_running() and one.status() != "zombie"]:
        assert time.monotonic() < deadline, f"{left} outlive the process that started them"
        time.sleep(0.2)


def test_a_run_whose_engine_dies_says_so_and_stops(story: dict[str, Any]) -> None:
    code, said = story["engine lost"]
    assert code == 1
    assert "error:" in said
    assert "--resume" in said
    assert "Traceback" not in said


def test_a_killed_run_goes_on_from_its_last_checkpoint(story: dict[str, Any]) -> None:
    said, code = story["interrupted"]
    assert f"resumed after step {story['killed after']}" in said
    assert code in (0, 130), said
    steps = [line["step"] for line in read(story["folder"] / "metrics.jsonl")]
    assert steps == list(range(len(steps)))
    assert len(steps) > story["killed after"] + 1


def test_ctrl_c_stops_after_the_step_with_a_checkpoint(story: dict[str, Any]) -> None:
    said, code = story["interrupted"]
    assert code == 130, said
    assert "stopping after this step" in said
    last = read(story["folder"] / "metrics.jsonl")[-1]["step"]
    assert newest(story["folder"]) == last < 9
    assert re.search(rf"Stopped after step {last} of 9", said)


def test_a_checkpoint_holds_what_every_part_needs(story: dict[str, Any]) -> None:
    folder: Path = story["folder"]
    checkpoint = folder / "checkpoints" / f"step-{newest(folder):06d}"
    names = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    assert {"buffer.json", "state.json", "policy/policy.json", "policy/model/model.safetensors"} <= names
    assert any(name.startswith("policy/deepspeed/state/") and "optim_states" in name for name in names)
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["files"].keys() == names - {"manifest.json"}
    assert not list(folder.glob(".openrlhf-*"))


def test_a_run_is_evaluated_by_the_local_policy(story: dict[str, Any], tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join((ROOT / "azr" / "nano" / "heldout.jsonl").open().readlines()[:3]), encoding="utf-8")
    words = ["eval", str(story["folder"]), "--tasks", str(few), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "azr.cli", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sum(score["num_tasks"] for name, score in json.loads(done.stdout).items() if name != "mean") == 3


def test_the_run_directory_is_as_any_other(story: dict[str, Any]) -> None:
    folder: Path = story["folder"]
    names = {path.name for path in folder.iterdir()}
    assert {"config.toml", "metrics.jsonl", "run.db", "log.txt", "model", "anchors.jsonl"} <= names
    command = [sys.executable, "-m", "azr.cli", "audit", "verify", str(folder)]
    verified = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
