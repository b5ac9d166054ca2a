"""The errors that a person can mend; `cli.py` catches them, prints them and exits."""

from __future__ import annotations


class GitopsError(Exception):
    """Something is not as it must be; the message says what was wrong, where and what to do.

    Attributes:
        exit_code: What the command exits with.
    """

    exit_code = 1


class UsageError(GitopsError):
    """The command was called wrongly, in a way that its parser cannot see."""

    exit_code = 2


class SettingsError(GitopsError):
    """A settings file is missing, is not YAML or breaks a rule; the message is meant for people."""
