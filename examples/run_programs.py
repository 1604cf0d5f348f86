"""Run untrusted programs in the sandbox and print the result of each: `python examples/run_programs.py`.

Needs a Docker engine and the sandbox image (`make image`).
"""

from __future__ import annotations

from sandbox import Blocking, DockerExecutor, Job, Limits

PROGRAMS = {
    "a value": "def f(x):\n    return sorted(x)",
    "an error of the program": "def f(x):\n    return x / 0",
    "an endless loop": "def f(x):\n    while True: pass",
    "a file of the host": "def f(x):\n    return open('/etc/shadow').read()",
}


def main() -> None:
    jobs = [Job(program, inputs=("[3, 1, 2]",), limits=Limits(wall_s=1.0)) for program in PROGRAMS.values()]
    with Blocking(DockerExecutor("azr-sandbox")) as sandbox:
        executions = sandbox.run(jobs)
    for title, execution in zip(PROGRAMS, executions, strict=True):
        [result] = execution.results
        print(f"{title}: {result.status} {result.value or result.error}")


if __name__ == "__main__":
    main()
