"""What lets a blocked change pass, where it is meant: the label that lifts each failure.

A failure that was found by another way says itself what to do; these are the terms of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gitops_ml.core import paths
from gitops_ml.gate.verdict import Finding, Limit
from gitops_ml.github.labels import LOOSEN_LABEL, NEW_BASELINE_LABEL


def remedies(terms: Iterable[Finding | Limit]) -> tuple[str, ...]:
    """What to do about the terms that failed; nothing where none did.

    Args:
        terms: All that was judged.
    """
    failed = [term for term in terms if term.failures]
    lifted = [one.term for one in failed if isinstance(one, Finding) and one.lifted_by]
    others = list(_not_lifted(failed))
    found = []
    if lifted:
        found.append(
            "If the loss is meant, as when an improvement is reverted, a maintainer can accept the "
            f"model without a comparison, with the label `{NEW_BASELINE_LABEL}` on the pull "
            f'request, or --accept-new-baseline "<reason>". It lifts: {_listed(lifted)}.'
        )
    if others:
        found.append(
            f"No label by itself lifts these: {_listed(others)}. Hold them, or ask for less in "
            f"{paths.CONTRACT}; a maintainer can consent to that with the label `{LOOSEN_LABEL}` "
            "on the pull request, or --allow-loosening."
        )
    return tuple(found)


def _not_lifted(failed: Iterable[Finding | Limit]) -> Iterator[str]:
    for one in failed:
        if isinstance(one, Finding):
            # A comparison fails once; what else failed is a floor or a ceiling.
            if len(one.failures) > (one.lifted_by is not None):
                yield one.term
        elif not any(LOOSEN_LABEL in failure for failure in one.failures):
            yield one.term


def _listed(terms: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(terms))
