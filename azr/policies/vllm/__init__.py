"""vLLM in this process, beside the local learner: `policy.rollouts = "vllm"`.

`setup` builds the sampler from config and model. `sampler` serves many calls with one engine. `engine` is the only
module that imports vLLM. `weights` gives the engine the learner's weights, and `probe` compares their logprobs.
"""
