"""The error for a request that is not served, with its HTTP status."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """The request is not served."""

    status: int
    why: str
    login: bool = False
    """Whether a token would help."""
    retry_s: int = 0
    """With 429: when to try again."""
    pause_s: float = 0.0
    """Seconds by which the response is delayed."""
