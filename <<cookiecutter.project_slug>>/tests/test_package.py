"""An example of a test of your own code: it needs no data and no model, so `make check` runs it."""

import importlib
import pkgutil

import << cookiecutter.project_slug >> as package


def test_every_module_can_be_imported() -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
