"""Faults, injected for real: processes killed, stopped and starved, and what must hold of them nevertheless.

    supervisor.World   replicas, PostgreSQL and the authorization server as processes (processes, postgres, provider)
    load               callers who never stop asking, and write down every answer
    evidence           what is left to judge: answers, rows, the provider's memory, files
    invariants         pure functions from evidence to violations (answered: those over answers)
    scenarios          a fault each, with a seed and a size (machine: disks and clocks; upstream: the provider's; crowd and
                       hung: many callers, many refreshes; outage: an hour without a provider, on simulated time)
    sabotages          builds of the service that violate them, one for each at least (broken, moments)

`pytest tests/faults` runs what holds, in a minute; `python -m tests.faults` all of it, and prints a table. `python -m
tests.faults.sabotage` shows of each invariant that it finds what violates it.
"""
