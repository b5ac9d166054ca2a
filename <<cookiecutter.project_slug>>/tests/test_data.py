"""The data that the pipeline wrote: `make pipeline test-data`.

The checks are the engine's. Add your own as methods; to change or skip one, write a method of its
name here, with the parameters that it has there:

    @pytest.mark.skip(reason="the same flight comes twice by nature")
    def test_no_key_comes_twice(self, problems: list[Problem]) -> None: ...
"""

from gitops_ml.checks.data import DataChecks


class TestData(DataChecks):
    """The table, its two sides, and no leak between target and features."""
