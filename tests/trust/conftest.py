"""One thread for these small models."""

from tests.one_thread import one_thread

__all__ = ["one_thread"]
