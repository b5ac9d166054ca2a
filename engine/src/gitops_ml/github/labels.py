"""The labels of a pull request by which a maintainer consents."""

LOOSEN_LABEL = "contract: loosen"
NEW_BASELINE_LABEL = "model: new baseline"
OWN_ENGINE_LABEL = "engine: judge itself"
