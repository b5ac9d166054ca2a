"""A machine of one's own: the container image of `containers`, in a pod that the machine knows.

An environment's branch says which release runs, and nothing of how: `deploy/host/pull.py` writes
the release into the machine's own `pod.yaml`. So whoever may write to the branch can choose among
the images of the one name that the machine takes, and has no say in what they may do there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gitops_ml.ship.release.release import RELEASE, parse_release
from gitops_ml.ship.targets.containers import details, how_to_verify, look_up, recorded

__all__ = ["details", "how_to_verify", "look_up", "recorded", "render"]


def render(root: Path, environment: str, release: Mapping[str, Any]) -> dict[str, bytes]:
    """Nothing but the release itself goes to the branch.

    Raises:
        ReleaseError: If the release lacks what the machine must know.
    """
    parse_release(json.dumps(release).encode(), RELEASE)
    return {}
