"""JSON that others wrote: what cannot be read is one kind of error, whatever in it is wrong."""

from __future__ import annotations

import json
from typing import Any


def load_json(text: str | bytes) -> Any:
    """Read a JSON document.

    Raises:
        ValueError: If it is none; also where it nests deeper than can be read, for which the
            library raises another error.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
