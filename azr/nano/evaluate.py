"""What the base can do, with thoughts left to it, forced and forbidden: `python -m azr.nano.evaluate [FOLDER]`.

Replies are judged by the small language's own evaluator; nothing that the model wrote is run as Python.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from azr.nano import documents, grammar, heldout, tokenizer
from azr.nano.documents import NUM_INPUTS
from azr.nano.heldout import Row

TASK_TYPES = ("deduction", "abduction", "induction")
KIND = {"deduction": "output", "abduction": "input", "induction": "python"}
Thinking = Literal["free", "forced", "off"]


class Score(NamedTuple):
    """Over the held-out tasks of one type, in percent."""

    correct: float
    thinks: float
    """Replies that have thoughts."""
    correct_thinking: float
    """Correct among those; nan when there are none."""


def score(
    model: Qwen3ForCausalLM, rows: Sequence[Row], *, thinking: Thinking = "free", temperature: float = 0.0
) -> dict[str, Score]:
    """How the model solves the tasks, by type."""
    by_type: dict[str, Score] = {}
    for task_type in TASK_TYPES:
        chosen = [row for row in rows if row["task_type"] == task_type]
        prompts = [_start(model, prompt_of(row), KIND[task_type], thinking) for row in chosen]
        starts = [len(prompt_of(row)) for row in chosen]
        texts = generate(model, prompts, temperature=temperature)
        replies = [text[start:] for text, start in zip(texts, starts, strict=True)]
        right = [is_correct(row, reply) for row, reply in zip(chosen, replies, strict=True)]
        thinks = [not reply.startswith("</think>") for reply in replies]
        both = [r for r, t in zip(right, thinks, strict=True) if t]
        by_type[task_type] = Score(_percent(right), _percent(thinks), _percent(both))
    return by_type


def proposals(model: Qwen3ForCausalLM, count: int = 400, *, references: int = 2) -> dict[str, float]:
    """Of `count` sampled proposals, in percent: the valid ones, and different programs among these."""
    rng = Random(1)
    mixture = documents.Mixture(documents.DEPTHS, 0.0, 1)
    shown = [[_drawn(rng, mixture) for _ in range(references)] for _ in range(count)]
    replies = _continue(model, [documents.propose_prompt("deduction", each) for each in shown])
    programs = [program for program in map(proposed_program, replies) if program]
    given = [_drawn(rng, mixture)[0] for _ in range(count)]
    induction = _continue(model, [documents.propose_induction_prompt(program) for program in given])
    valid = [is_valid_induction(program, reply) for program, reply in zip(given, induction, strict=True)]
    statements = sum(program.count("\n") for program in programs) / max(1, len(programs))
    return {
        "valid": 100 * len(programs) / count,
        "valid_induction": _percent(valid),
        "distinct": 100 * len(set(programs)) / count,
        "statements": statements,
    }


def prompt_of(row: Row) -> str:
    """The solver's prompt of a held-out task."""
    if row["task_type"] == "induction":
        examples = list(zip(row["inputs"], row["outputs"], strict=True))[: NUM_INPUTS // 2]
        return documents.solve_induction_prompt(examples, cast(str, row["message"]))
    if row["task_type"] == "deduction":
        return documents.solve_deduction_prompt(cast(str, row["program"]), cast(str, row["input"]))
    return documents.solve_abduction_prompt(cast(str, row["program"]), cast(str, row["output"]))


def is_correct(row: Row, reply: str) -> bool:
    """Whether the reply solves the task; False for anything outside the small language."""
    answer = _answer(reply, KIND[cast(str, row["task_type"])])
    try:
        if row["task_type"] == "deduction":
            return repr(grammar.parse_value(answer)) == row["output"]
        if row["task_type"] == "abduction":
            return _output(grammar.parse(cast(str, row["program"])), answer) == row["output"]
        program, half = grammar.parse(answer), NUM_INPUTS // 2
        return [_output(program, each) for each in row["inputs"][half:]] == row["outputs"][half:]
    except grammar.OutsideGrammarError:
        return False


def proposed_program(reply: str) -> str:
    """The program of a valid proposal; empty for any other."""
    program, _, value = _answer(reply, "python").partition(tokenizer.NEXT["input"])
    try:
        _output(grammar.parse(program), value)
    except grammar.OutsideGrammarError:
        return ""
    return program


def is_valid_induction(program: str, reply: str) -> bool:
    inputs, _, message = _answer(reply, "input").partition(tokenizer.NEXT["message"])
    values = inputs.split(tokenizer.NEXT["input"])
    try:
        outputs = [_output(grammar.parse(program), value) for value in values]
    except grammar.OutsideGrammarError:
        return False
    return len(outputs) == NUM_INPUTS and bool(message)


def _output(program: grammar.Program, value: str) -> str:
    return repr(grammar.run(program, grammar.parse_value(value))[-1])


def _answer(reply: str, kind: str) -> str:
    match = re.fullmatch(f"(?s).*?</think><answer>```{kind}\n(.*)\n```</answer>", reply)
    return match[1] if match else ""


def _percent(claims: Sequence[bool]) -> float:
    return 100 * sum(claims) / len(claims) if claims else float("nan")


def _drawn(rng: Random, mixture: documents.Mixture) -> tuple[str, str]:
    program, value = documents.draw(rng, mixture)
    return grammar.source_text(program), repr(value)


def _start(model: Qwen3ForCausalLM, prompt: str, kind: str, thinking: Thinking) -> list[int]:
    ids = tokenizer.encode(prompt)
    if thinking == "free":
        return ids
    answer = tokenizer.encode(tokenizer.ANSWER[kind])
    if thinking == "off":
        return ids + answer
    with torch.no_grad():
        logits_V = model(input_ids=torch.tensor([ids])).logits[0, -1]
    logits_V[answer] = -torch.inf
    return [*ids, int(logits_V.argmax())]


def _continue(model: Qwen3ForCausalLM, prompts: list[str]) -> list[str]:
    texts = generate(model, [tokenizer.encode(prompt) for prompt in prompts], temperature=1.0)
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


@torch.no_grad()
def generate(
    model: Qwen3ForCausalLM, prompts: list[list[int]], *, temperature: float, batch_size: int = 100
) -> list[str]:
    """The prompts with what the model adds, as text without the end of sequence."""
    decoder = tokenizer.build()
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    texts = [""] * len(prompts)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        width = max(len(prompts[number]) for number in chosen)
        ids_BT = torch.tensor([[0] * (width - len(prompts[n])) + prompts[n] for n in chosen])
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        out_BT = _generate(model)(ids_BT, attention_mask=(ids_BT != 0).long(), max_new_tokens=128, **drawn)
        for number, row_T in zip(chosen, cast(list[list[int]], out_BT.tolist()), strict=True):
            texts[number] = str(decoder.decode([token for token in row_T if token > 1]))
    return texts


def _generate(model: Qwen3ForCausalLM) -> Callable[..., Tensor]:
    """`model.generate`, which the type stubs of transformers lack."""
    return cast(Callable[..., Tensor], getattr(model, "generate"))  # noqa: B009


def main(folder: Path) -> None:
    """Print the table of a base."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM.from_pretrained(folder)
    rows = heldout.read()
    settings: list[tuple[str, Thinking, float]] = [
        ("greedy", "free", 0.0),
        ("sampled", "free", 1.0),
        ("thinking forced", "forced", 0.0),
        ("forced, sampled", "forced", 1.0),
        ("thinking off", "off", 0.0),
    ]
    for name, thinking, temperature in settings:
        scores = score(model, rows, thinking=thinking, temperature=temperature)
        cells = " | ".join(f"{s.correct:.1f} ({s.thinks:.0f} % think)" for s in scores.values())
        print(f"| {name} | {cells} | mean {sum(s.correct for s in scores.values()) / 3:.1f} |", flush=True)
    print(proposals(model))
    for references in (0, 1):
        print(references, proposals(model, 200, references=references))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "weights")
