"""The embedded base model: a stand-in for a pretrained language model, small enough for a laptop.

What it is: 0.88 million parameters (Qwen3's architecture, 4 layers of width 128), trained in this folder from random
weights on documents about a small Python (`grammar`), in the six roles of self-play. It lets the whole real path run
in minutes: prompts, sandbox, six baselines, policy updates. It is no evidence about large models.

What its design builds in: it can think, line by line, before it answers, and thinking helps, because the programs are
chains that are hard to follow in one pass. But in the last phase of pretraining most replies are direct, so at
temperature 0 it mostly answers at once. Self-play can find out that thinking pays: that room is there on purpose.
Every document is right; no error was injected. Read a gain beside the base's accuracy with thoughts forced
(`python -m azr.nano.evaluate`), which says how much of it is such elicitation.

Files: `grammar` the language, `tokenizer`, `documents` what the base reads, `pretrain` (`muon`, `forward`) makes
`weights/`, `heldout` the fixed tasks of `heldout.jsonl`, `evaluate` what a base can do. Its prompts are `prompts/nano`.
"""
