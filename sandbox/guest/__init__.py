"""What runs inside the sandbox, from trusted to hostile. Standard library and `sandbox.shared` only.

Read in the order in which a request passes through::

    supervisor.py   PID 1: imports everything once, then serves one request after the other
    watch.py        forks, measures the fork from outside, kills what is left, sends the reply
    confine.py      what the fork gives up before it runs anything hostile
    candidate.py    in the fork: screens a program, evaluates an input, or calls the program; writes lines
    warmup.py, clock.py    make forks cheap; make the two seed slots differ
"""
