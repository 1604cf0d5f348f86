"""Measures an executor beside what it cannot beat (a bare fork) and what it replaces (a fresh Python, `docker run`).

Read `comparison.py`. The clock of a verdict stops when its value is decoded on the host and its process is reaped.
"""
