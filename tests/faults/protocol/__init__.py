"""The refresh protocol, one step at a time, under whatever may happen to it in any order: replicas in this process, which can
be stopped, cut off and killed; a real PostgreSQL; the hostile sandbox; and time that passes as it is told to.

    machine, long       the rules, and how they are run          world     what a rule may do
      ending, excuses   what is judged when all is mended, and what may have been lost
      history, invariants   what was seen of the protocol, and what must hold of it
    surroundings        PostgreSQL, the provider and time        witness   every change, as PostgreSQL saw it
      clock, gate       one time for all; requests held at the provider
    replica, steps      a broker, and each point of its refreshes        rest, asking, story
"""
