"""The programs that `azr doctor` runs inside the sandbox; each file is sent as program text and uses only the standard
library.

A function returns what it reached and raises the error that stopped it. Each process calls it twice, so results are
cached.
"""
