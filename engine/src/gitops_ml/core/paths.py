"""Where each artefact lives, relative to the project's root; `dvc.yaml` names the same paths."""

from pathlib import Path

PYPROJECT = Path("pyproject.toml")
SOURCES = Path("src")  # the user's package is in it
PARAMS = Path("params.yaml")
CONTRACT = Path("contract.yaml")
CONTRACT_SCHEMA = Path("contract.schema.json")
SCHEMA = Path("schema.yaml")
DVC_YAML = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")
UV_LOCK = Path("uv.lock")
PYTHON_VERSION = Path(".python-version")

QUARANTINE = Path("data/quarantine")
INGESTED = Path("data/ingested.parquet")
TRAIN = Path("data/split/train.parquet")
TEST = Path("data/split/test.parquet")

MODELS = Path("models")
MODEL = MODELS / "model.joblib"
ONNX_MODEL = MODELS / "model.onnx"
MANIFEST = MODELS / "manifest.json"

REPORTS = Path("reports")
LOCKED_VERSIONS = REPORTS / "locked_versions.json"
TRAINED_ELSEWHERE = REPORTS / "trained_elsewhere.json"
TRAINING_ENVIRONMENT = REPORTS / "training_environment.json"
INGEST_REPORT = REPORTS / "ingest.json"
VALIDATION_REPORT = REPORTS / "validation.json"
VALIDATION_PAGE = REPORTS / "validation.html"
DATA_PROFILE = REPORTS / "data_profile.json"
METRICS = REPORTS / "metrics.json"
EVALUATION = REPORTS / "evaluation.json"
GOLDEN = REPORTS / "golden.json"
PLOTS = REPORTS / "plots"
GATE_REPORT = REPORTS / "gate.json"
GATE_TABLE = REPORTS / "gate.md"
MONITOR_REPORT = REPORTS / "monitor.json"
MONITOR_PAGE = REPORTS / "monitor.html"

RELEASE = Path("release.json")  # only in a bento
