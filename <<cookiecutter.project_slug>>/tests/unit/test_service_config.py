from __future__ import annotations

from pathlib import Path

import pytest

from << cookiecutter.project_slug >>.serving.config import ConfigError, ServiceConfig


def test_unset_and_empty_variables_keep_their_default() -> None:
    config = ServiceConfig.from_environment({"SERVICE_WORKERS": "", "PATH": "/bin"})

    assert config == ServiceConfig()
    assert config.prediction_log is None


def test_variables_are_read_by_name() -> None:
    config = ServiceConfig.from_environment(
        {
            "SERVICE_WORKERS": "2",
            "SERVICE_MAX_ROWS": "50",
            "SERVICE_MAX_BODY_MB": "0.5",
            "PREDICTION_LOG_DIR": "/var/log/predictions",
        }
    )

    assert (config.workers, config.max_rows, config.max_body_bytes) == (2, 50, 500_000)
    assert config.prediction_log == Path("/var/log/predictions")


def test_every_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        ServiceConfig.from_environment({"SERVICE_WORKERS": "many", "SERVICE_MAX_ROWS": "0"})

    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert any("SERVICE_WORKERS" in line and "'many'" in line for line in lines)
    assert any("SERVICE_MAX_ROWS" in line and "'0'" in line for line in lines)
