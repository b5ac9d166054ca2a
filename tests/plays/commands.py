"""The command `gitops-ml`, as a person calls it, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gitops_ml import cli


def subcommand(name: str) -> Callable[..., int]:
    """A subcommand: takes the words that follow its name, gives back its exit code."""

    def main(arguments: Sequence[str] = ()) -> int:
        return cli.main([name, *arguments])

    return main
