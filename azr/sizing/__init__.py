"""What a run needs and how long it takes, by arithmetic: no torch, no GPU, no cluster.

`architecture` has a model's shape, `topology` which GPU does what, `memory` bytes a GPU, `step` seconds a step,
`hardware` what is assumed of machines. Every number that is not counted is a named assumption.
"""
