"""How the service is run: a few environment variables, checked when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gitops_ml.core.errors import GitopsError


class ConfigError(GitopsError):
    """An environment variable has a value that it cannot have; the message names it."""


class ServiceConfig(BaseModel):
    """What the environment may set, by the variable's name."""

    model_config = ConfigDict(frozen=True)

    workers: Annotated[int, Field(ge=1, le=256, alias="SERVICE_WORKERS")] = 1
    max_rows: Annotated[int, Field(ge=1, le=100_000, alias="SERVICE_MAX_ROWS")] = 10_000
    max_body_mb: Annotated[float, Field(gt=0, le=100, alias="SERVICE_MAX_BODY_MB")] = 8
    prediction_log: Annotated[Path | None, Field(alias="PREDICTION_LOG_DIR")] = None
    expected_release: Annotated[str | None, Field(alias="EXPECTED_RELEASE")] = None
    expected_model: Annotated[
        str | None, Field(pattern="^[0-9a-f]{64}$", alias="EXPECTED_MODEL_SHA256")
    ] = None
    release_digest: Annotated[
        str | None, Field(pattern="^sha256:[0-9a-f]{64}$", alias="RELEASE_DIGEST")
    ] = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ServiceConfig:
        """Read the variables; those that are unset or empty keep their default.

        Raises:
            ConfigError: With one line for every variable that has a bad value.
        """
        names = {str(field.alias) for field in cls.model_fields.values()}
        given = {name: environment[name] for name in sorted(names) if environment.get(name)}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            lines = [
                f"environment variable {problem['loc'][0]}: {problem['msg']} "
                f"(found {problem['input']!r})"
                for problem in error.errors()
            ]
            raise ConfigError("\n".join(lines)) from error

    @property
    def max_body_bytes(self) -> int:
        """The largest body that is read."""
        return int(self.max_body_mb * 1_000_000)
