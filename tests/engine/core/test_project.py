from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from gitops_ml.core.errors import SettingsError
from gitops_ml.core.project import AcceptedVulnerability, Project, load_project, parse_project

WHOLE = """
[tool.gitops-ml]
package = "flight_delays"
deploy-target = "host"
trained-elsewhere = "gpu-cluster"
package-sources = ["https://example.com/wheels"]

[[tool.gitops-ml.accepted-vulnerabilities]]
id = "CVE-2026-1"
reason = "No strangers."
until = 2026-12-31
"""
LEAST = '[tool.gitops-ml]\npackage = "late"\n'


def test_all_that_a_project_may_say_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(WHOLE, encoding="utf-8")
    found = load_project(tmp_path)
    assert (found.package, found.deploy_target) == ("flight_delays", "host")
    assert found.trained_elsewhere == "gpu-cluster"
    assert found.package_sources == ("https://example.com/wheels",)
    assert found.accepted_vulnerabilities == (
        AcceptedVulnerability(id="CVE-2026-1", reason="No strangers.", until=date(2026, 12, 31)),
    )
    (short,) = parse_project(
        f"{LEAST}accepted-vulnerabilities = [{{id = 'x', reason = 'y', until = 2026-12-31}}]\n",
        "pyproject.toml",
    ).accepted_vulnerabilities
    assert (short.id, short.reason) == ("x", "y")
    assert found.bento_file == "flight_delays.bento"


def test_a_project_need_say_no_more_than_its_package() -> None:
    found = parse_project(LEAST, "pyproject.toml")
    assert found == Project(package="late")
    assert found.deploy_target == "none"
    assert found.trained_elsewhere is None
    assert (found.package_sources, found.accepted_vulnerabilities) == ((), ())


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('deploy-target = "moon"', "deploy-target"),
        ('deploy_target = "host"', "deploy_target"),
        ('trained-elsewhere = ""', "trained-elsewhere"),
        (f'trained-elsewhere = "{"x" * 101}"', "trained-elsewhere"),
        ('package-sources = "https://example.com"', "package-sources"),
        ("typo = 1", "typo"),
        (
            'accepted-vulnerabilities = [{id = "", reason = "x", until = 2026-12-31}]',
            "accepted-vulnerabilities.0.id",
        ),
        (
            'accepted-vulnerabilities = [{id = "x", reason = "", until = 2026-12-31}]',
            "accepted-vulnerabilities.0.reason",
        ),
        (
            'accepted-vulnerabilities = [{id = "x", reason = "x", until = 2026-12-31, no = 1}]',
            "accepted-vulnerabilities.0.no",
        ),
    ],
)
def test_what_a_project_may_not_say_is_named(more: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_project(f"{LEAST}{more}\n", "there.toml")
    assert str(caught.value).startswith(f"there.toml: [tool.gitops-ml] {key}: ")


@pytest.mark.parametrize("package", ["Late", "9late", "la-te", "", "_late"])
def test_a_package_has_a_name_that_python_and_bentoml_know(package: str) -> None:
    with pytest.raises(SettingsError, match="package: "):
        parse_project(f'[tool.gitops-ml]\npackage = "{package}"\n', "pyproject.toml")


@pytest.mark.parametrize("length", [1, 100])
def test_trained_elsewhere_has_a_length_that_a_report_can_show(length: int) -> None:
    name = "x" * length
    found = parse_project(f'{LEAST}trained-elsewhere = "{name}"\n', "pyproject.toml")
    assert found.trained_elsewhere == name


def test_two_faults_are_two_lines() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_project("[tool.gitops-ml]\ntypo = 1\n", "pyproject.toml")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("table", ["text = 1", '[tool]\ngitops-ml = "late"'])
def test_what_is_no_table_is_named(table: str) -> None:
    with pytest.raises(SettingsError, match=r"pyproject\.toml: "):
        parse_project(table, "pyproject.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    with pytest.raises(SettingsError, match="no such file; run from the project's root"):
        load_project(tmp_path)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_project(tmp_path)
    path.write_text("[", encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_project(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        load_project(tmp_path)
    path.rmdir()
    path.write_text("[tool.other]\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"has no table \[tool\.gitops-ml\]"):
        load_project(tmp_path)
