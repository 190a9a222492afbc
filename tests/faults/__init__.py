"""Faults, injected for real: processes killed, stopped and starved, and what must hold of them nevertheless.

    supervisor.World   replicas, PostgreSQL and the authorization server as processes (processes, postgres, provider)
    load               callers who never stop asking, and write down every answer
    evidence           what is left to judge: answers, rows, the provider's memory, files
    invariants         pure functions from evidence to violations
    scenarios          a fault each, with a seed and a size (machine: disks and clocks; upstream: the provider's)

`pytest tests/faults` runs what holds, in a minute; `python -m tests.faults` all of it, and prints a table.
"""
