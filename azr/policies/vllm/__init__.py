"""vLLM in this process, beside the local learner: `policy.rollouts = "vllm"`.

`setup` looks at config and model and puts the parts together, `sampler` drives the engine for many calls at once,
`engine` is the border (the one module that imports vLLM), `weights` and `probe` keep it computing what the learner
does.
"""
