"""The base of every error that a person can mend."""

from __future__ import annotations


class GitopsError(Exception):
    """Something is not as it must be; the message says what was wrong, where and what to do."""
