"""YAML as people write it: what cannot be read is one kind of error, whatever in it is wrong."""

from __future__ import annotations

from typing import Any

import yaml


def load_yaml(text: str | bytes) -> Any:
    """Read a YAML document.

    Raises:
        YAMLError: If it is none; also for a date that no calendar has, and where it nests deeper
            than can be read, for which the library raises other errors.
    """
    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise yaml.YAMLError("it nests too deeply") from error
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error
