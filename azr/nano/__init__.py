"""The embedded base model: a stand-in for a pretrained language model, small enough for a laptop.

What it is: 0.88 million parameters (Qwen3's architecture, 4 layers of width 128), trained in this folder from random
weights on documents about a small Python (`grammar`), in the six roles of self-play. It lets the whole real path run
in minutes: prompts, sandbox, six baselines, policy updates. Its results say nothing about large models.

What its design builds in: it can think, line by line, before it answers, and thinking helps, because the programs are
chains that are hard to follow in one pass. But in the last phase of pretraining most replies are direct, so at
temperature 0 it mostly answers at once. Self-play can discover that thinking pays; this possibility is deliberate.
Every document is correct; no errors were injected. Compare a gain with the base model's accuracy when it is forced to
think (`azr eval nano --thinking forced`): that part of the gain is elicitation.

Files: `grammar` is the language, `documents` is what the base model reads, `tokenizer` makes tokens of it, `pretrain`
(with `muon` and `forward`) makes `weights/`, and `heldout` the fixed tasks of `heldout.jsonl`. The prompts are in
`prompts/nano`.
"""
