"""What a run needs and how long it takes, by arithmetic: no torch, no GPU, no cluster.

`architecture` has a model's shape, `topology` says which GPU does what, `memory` counts bytes per GPU, `fit` compares
them with a GPU, `step` counts seconds per step, and `hardware` has the assumptions: every number that is not counted.
"""
