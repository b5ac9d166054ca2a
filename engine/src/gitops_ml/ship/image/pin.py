"""Pin the image's base: write the digest that its tag has today into `deploy/image/Dockerfile`.

gitops-ml image pin
"""

from __future__ import annotations

from pathlib import Path

from gitops_ml.core.base_image import DOCKERFILE, built_on, read_base
from gitops_ml.ship.image.registry import Registry
from gitops_ml.ship.settings import DeploymentError


def pin(root: Path) -> str:
    """Write the digest that the tag has today beside it.

    Returns:
        What was done.

    Raises:
        BaseImageError: If the file names no base image.
        DeploymentError: If the registry cannot be asked, or has no such tag.
    """
    base = read_base(root)
    held = Registry(base.name).manifest(base.tag)
    if held is None:
        raise DeploymentError(f"{DOCKERFILE}: its registry holds no {base.name}:{base.tag}")
    if held.digest == base.digest:
        return f"{DOCKERFILE} names {base.name}:{base.tag} by the digest that it has today"
    changed = built_on(root, f"{base.name}:{base.tag}@{held.digest}")
    (root / DOCKERFILE).write_text(changed, encoding="utf-8")
    return f"{DOCKERFILE}: {base.name}:{base.tag}@{held.digest}; commit it"
