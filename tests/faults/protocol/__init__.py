"""The refresh protocol, one step at a time: replicas in this process, which stand still where a rule of the state machine
says so, real PostgreSQL, the hostile sandbox, and time that passes as it is told to.

    clock      one time for PostgreSQL, replicas and the provider      gate      requests held at the provider
    replica    a broker that can be cut off, stopped and killed        world     all of them; what a rule may do
    history    what was seen of the protocol, as plain values          invariants over it   machine   the rules
"""
