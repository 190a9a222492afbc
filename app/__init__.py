"""A token broker: backend services ask it for fresh OAuth access tokens instead of keeping any."""

__version__ = "0.1.0"
