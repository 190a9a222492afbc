"""A hostile OAuth 2.0 authorization server, for the tests and for `make run`; it imports nothing else of app.

It keeps RFC 6749 to the letter until it is told not to: it rotates refresh tokens, detects their reuse, counts what
it is asked, and fails on demand. Its control endpoints ask for no credentials, so it belongs on loopback only.

    server, routes   the socket, and the order in which things happen to a request
      protocol, authorize, call           what the RFCs say about a request
      state, tokens, settings, counters   what the sandbox knows: no IO, no clock
      faults, wire   how an answer goes wrong   control   the test's side door   storage   the state file
"""
