"""What goes wrong in processes that are measured. Imports nothing, so that clients start at once."""

from __future__ import annotations


class WorkerFailed(Exception):
    """A worker that ended with an error, or a request that it did not answer."""
