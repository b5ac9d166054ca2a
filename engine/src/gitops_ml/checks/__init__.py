"""The checks that a project's tests call: subclass them in `tests/`, override what is different.

    # tests/conftest.py
    pytest_plugins = ["gitops_ml.checks.fixtures"]

    # tests/test_data.py
    from gitops_ml.checks.data import DataChecks

    class TestData(DataChecks):
        ...

Needs the extra `checks`.
"""

import pytest

# A failed check shows the values that were compared, as a test of the project's own does.
pytest.register_assert_rewrite(
    f"{__name__}.data", f"{__name__}.gate", f"{__name__}.model", f"{__name__}.service"
)
