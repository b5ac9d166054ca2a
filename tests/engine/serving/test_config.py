from __future__ import annotations

from pathlib import Path

import pytest

from gitops_ml.model.predictor import ModelError
from gitops_ml.serving.config import ConfigError, ServiceConfig
from gitops_ml.serving.release import as_deployed, check_expected

MODEL = "0123456789abcdef" * 4
OTHER = "f" * 64
RELEASE = {"release": "flights:1", "model": {"file": "model.onnx", "sha256": MODEL}}


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


@pytest.mark.parametrize("value", ["abc", "sha256:" + MODEL, MODEL.upper(), MODEL + "0"])
def test_a_hash_that_no_model_can_have_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="EXPECTED_MODEL_SHA256"):
        ServiceConfig.from_environment({"EXPECTED_MODEL_SHA256": value})


@pytest.mark.parametrize("value", [MODEL, f"sha256:{MODEL}0", f"sha256:{MODEL.upper()}", "latest"])
def test_a_digest_that_no_artifact_can_have_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="RELEASE_DIGEST"):
        ServiceConfig.from_environment({"RELEASE_DIGEST": value})


def test_the_release_is_told_with_the_digest_that_it_was_deployed_by() -> None:
    digest = f"sha256:{OTHER}"
    config = ServiceConfig.from_environment({"RELEASE_DIGEST": digest})

    assert as_deployed(RELEASE, config) == {**RELEASE, "digest": digest}
    assert as_deployed(RELEASE, ServiceConfig()) == {**RELEASE, "digest": None}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"EXPECTED_RELEASE": "", "EXPECTED_MODEL_SHA256": ""},
        {"EXPECTED_RELEASE": "flights:1"},
        {"EXPECTED_MODEL_SHA256": MODEL},
        {"EXPECTED_RELEASE": "flights:1", "EXPECTED_MODEL_SHA256": MODEL},
    ],
)
def test_the_expected_release_may_run(variables: dict[str, str]) -> None:
    check_expected(RELEASE, ServiceConfig.from_environment(variables))


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"EXPECTED_RELEASE": "flights:2"}, ["EXPECTED_RELEASE is flights:2, but flights:1"]),
        ({"EXPECTED_MODEL_SHA256": OTHER}, [f"EXPECTED_MODEL_SHA256 is {OTHER}, but {MODEL}"]),
        (
            {"EXPECTED_RELEASE": "flights:2", "EXPECTED_MODEL_SHA256": OTHER},
            ["EXPECTED_RELEASE is", "EXPECTED_MODEL_SHA256 is"],
        ),
        ({"EXPECTED_RELEASE": "flights:10", "EXPECTED_MODEL_SHA256": MODEL}, ["EXPECTED_RELEASE"]),
    ],
)
def test_another_release_may_not_run(variables: dict[str, str], named: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        check_expected(RELEASE, ServiceConfig.from_environment(variables))

    assert all(text in str(error.value) for text in named)
    assert len(str(error.value).splitlines()) == len(named) + 1
