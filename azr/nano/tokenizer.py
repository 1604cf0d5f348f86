"""The nano model's tokenizer: whole pieces of the small language, and single characters for everything else.

`\\n a=`, `sorted(`, `39` and `</think><answer>```output\\n` are one token each, so that a model of a million
parameters does not have to spell. Encoding takes the longest piece at each position, decoding joins the pieces; the
round trip is exact on printable ASCII.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from azr.nano import grammar

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
THINK = "\n<think>"
ANSWER = {kind: f"</think><answer>```{kind}\n" for kind in ("python", "input", "output")}
"""The token that ends the thought and opens the first block of the answer."""
NEXT = {kind: f"\n```\n```{kind}\n" for kind in ("input", "message")}
CLOSE = "\n```</answer>"
TAGS = (
    "<propose deduction>",
    "<propose abduction>",
    "<propose induction>\n",
    "<solve deduction>\n",
    "<solve abduction>\n",
    "<solve induction>",
)
"""With a newline if a program follows; the tags of `FIELDS` have their own."""
FIELDS = ("\n<reference>\n", "\n<input>\n", "\n<output>\n", "\n<message>\n")
ARROW = " -> "


@lru_cache
def pieces() -> tuple[str, ...]:
    """Every token except the three special ones; the id of a token is its position here plus three."""
    structure = [THINK, *ANSWER.values(), *NEXT.values(), CLOSE, *TAGS, *FIELDS, ARROW, grammar.HEADER]
    starts = [grammar.start(target) for target in (*grammar.VARIABLES, "x", "return")]
    forms = [part for o in grammar.OPERATIONS for part in re.split(r"\{[vc]\}", o.form)]
    words = [operation.word for operation in grammar.OPERATIONS]
    numbers = [str(number) for number in range(40)]
    values = ["', '", ", ", *numbers]
    characters = [*string.printable[:95], "\n"]
    everything = [*structure, *starts, *forms, *words, *values, *characters]
    return tuple(dict.fromkeys(part for part in everything if part))


@lru_cache
def _pattern() -> str:
    return "|".join(re.escape(piece) for piece in sorted(pieces(), key=len, reverse=True))


@lru_cache
def _compiled() -> tuple[re.Pattern[str], dict[str, int]]:
    return re.compile(_pattern()), {piece: number for number, piece in enumerate(pieces(), start=3)}


def encode(text: str) -> list[int]:
    """Token ids of text of the small language, as the saved tokenizer gives them but faster."""
    pattern, ids = _compiled()
    return [ids[piece] for piece in pattern.findall(text)]


def build() -> PreTrainedTokenizerFast:
    vocabulary = {PAD: 0, EOS: 1, UNKNOWN: 2} | _compiled()[1]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_pattern()), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="left",
    )
