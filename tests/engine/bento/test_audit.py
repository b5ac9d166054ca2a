from __future__ import annotations

import json
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import subcommand
from fake_osv import FakeOsv
from pytest_httpserver import HTTPServer

from gitops_ml.bento import audit
from gitops_ml.bento.audit import (
    AdvisoryServiceError,
    AuditError,
    Package,
    Vulnerability,
    judge,
    listed_packages,
    locked_packages,
)
from gitops_ml.core.project import AcceptedVulnerability

main = subcommand("audit")

FAST = ("PyPI", "fast-json", "1.2.0")
SSL = ("Debian:13", "openssl", "3.5.1-1+deb13u1")
TODAY = date(2026, 11, 26)
EXPORTED = """\
fast-json==1.2.0 \\
    --hash=sha256:aa
Win_Only==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:bb
uvloop==0.21.0 ; sys_platform != 'win32' \\
    --hash=sha256:cc
"""
SBOM = [
    "pkg:pypi/Fast_JSON@1.2.0",
    "pkg:deb/debian/libssl3t64@3.5.1-1%2Bdeb13u1?arch=amd64&distro=debian-13.1&upstream=openssl",
    "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13&upstream=glibc",
    "pkg:deb/debian/libgcc-s1@14.2.0-19?distro=debian-13&upstream=gcc-14%4014.2.0-19+b1",
    "pkg:generic/python@3.13.9",
]


@pytest.fixture
def osv(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> FakeOsv:
    osv = FakeOsv(httpserver)
    monkeypatch.setenv("OSV_URL", f"{osv.url}/")
    monkeypatch.setattr(audit, "doubling", lambda attempt, error: 0.0)
    return osv


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "requirements", lambda root: EXPORTED)


def sbom(folder: Path, purls: list[str]) -> Path:
    """As syft writes it."""
    packages = [
        {
            "name": purl,
            "externalRefs": [
                {"referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a:x"},
                {"referenceType": "purl", "referenceLocator": purl},
            ],
        }
        for purl in purls
    ]
    packages.append({"name": "the image"})
    path = folder / "sbom.spdx.json"
    path.write_text(json.dumps({"spdxVersion": "SPDX-2.3", "packages": packages}))
    return path


def accept(project: Path, name: str, until: date) -> None:
    with (project / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(
            f'\n[[tool.gitops-ml.accepted-vulnerabilities]]\nid = "{name}"\n'
            f'reason = "No JSON of strangers is read."\nuntil = {until}\n'
        )


@pytest.mark.usefixtures("exported")
def test_where_nothing_is_known_it_passes(osv: FakeOsv, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    # What a bento gets on Linux, and only that.
    assert osv.asked == [FAST, ("PyPI", "uvloop", "0.21.0")]
    assert "2 packages looked up: 0 known vulnerabilities" in capsys.readouterr().out


@pytest.mark.usefixtures("exported")
def test_a_known_vulnerability_with_a_fix_fails_and_is_named(
    osv: FakeOsv, capsys: pytest.CaptureFixture[str]
) -> None:
    osv.add(FAST, "GHSA-1", "1.2.1", aliases=["CVE-2026-1"])
    assert main() == 1
    said = capsys.readouterr().out
    assert "fast-json 1.2.0 (PyPI): GHSA-1 = CVE-2026-1: reads too far: fixed in 1.2.1" in said
    assert "uv lock --upgrade-package NAME" in said
    assert "pin-base-image" not in said


@pytest.mark.usefixtures("exported")
def test_what_nobody_can_mend_yet_is_told_and_passes(
    osv: FakeOsv, capsys: pytest.CaptureFixture[str]
) -> None:
    osv.add(FAST, "GHSA-1")
    # Another package's fix, one of an older branch, and a commit, mend nothing here.
    elsewhere = {"package": {"ecosystem": "PyPI", "name": "other"}}
    here = {"package": {"ecosystem": "PyPI", "name": "Fast.JSON"}}
    fixed = {"events": [{"introduced": "0"}, {"fixed": "9.0"}]}
    older = {"events": [{"introduced": "0"}, {"fixed": "1.1.9"}]}
    osv.records["GHSA-1"]["affected"] = [
        {**elsewhere, "ranges": [{"type": "ECOSYSTEM", **fixed}]},
        {**here, "ranges": [{"type": "GIT", **fixed}, {"type": "ECOSYSTEM", **older}]},
    ]
    assert main() == 0
    assert "1 more have no fix yet" in capsys.readouterr().out


@pytest.mark.usefixtures("exported")
def test_what_was_withdrawn_is_no_vulnerability(osv: FakeOsv) -> None:
    osv.add(FAST, "GHSA-1", "1.2.1", withdrawn="2026-11-02T00:00:00Z")
    assert main() == 0


@pytest.mark.usefixtures("exported")
def test_all_pages_are_read(osv: FakeOsv, capsys: pytest.CaptureFixture[str]) -> None:
    osv.page = 1
    for name in ("GHSA-1", "GHSA-2", "GHSA-3"):
        osv.add(FAST, name, "1.2.1")
    assert main() == 1
    assert "3 known vulnerabilities have a fix" in capsys.readouterr().out


@pytest.mark.usefixtures("exported")
def test_all_packages_are_asked_for(osv: FakeOsv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BATCH", 1)
    osv.add(("PyPI", "uvloop", "0.21.0"), "GHSA-1", "0.22.0")
    assert main() == 1
    assert len(osv.asked) == 2


@pytest.mark.usefixtures("exported")
def test_an_accepted_one_passes_until_its_day_is_over(
    osv: FakeOsv, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    osv.add(FAST, "GHSA-1", "1.2.1", aliases=["CVE-2026-1"])
    accept(project, "CVE-2026-1", date.today() + timedelta(days=3))
    assert main() == 0
    assert "No JSON of strangers is read." in capsys.readouterr().out
    osv.add(FAST, "GHSA-2", "1.2.1")
    assert main() == 1
    assert "1 known vulnerabilities have a fix" in capsys.readouterr().out


def vulnerability(*names: str, fixes: tuple[str, ...] = ("1.2.1",)) -> Vulnerability:
    return Vulnerability(Package(*FAST), names, fixes, "")


def accepted(name: str, until: date) -> AcceptedVulnerability:
    return AcceptedVulnerability(id=name, reason="Harmless here.", until=until)


def test_the_last_day_still_counts() -> None:
    found = [vulnerability("GHSA-1")]
    assert judge(found, [accepted("GHSA-1", TODAY)], TODAY).failures == ()
    yesterday = TODAY - timedelta(days=1)
    (failure,) = judge(found, [accepted("GHSA-1", yesterday)], TODAY).failures
    assert failure.endswith("fixed in 1.2.1; it was accepted until 2026-11-25 only")


def test_one_vulnerability_of_several_names_is_told_once() -> None:
    found = [vulnerability("CVE-1", fixes=()), vulnerability("PYSEC-1", "CVE-1")]
    verdict = judge(found, [], TODAY)
    assert len(verdict.failures) == 1
    assert verdict.notes == ()


def test_what_is_accepted_in_vain_is_told() -> None:
    verdict = judge([], [accepted("GHSA-9", TODAY)], TODAY)
    assert verdict.failures == ()
    assert verdict.notes == (
        "pyproject.toml: GHSA-9 is accepted, and was not found: is it still needed?",
    )


@pytest.mark.parametrize("missing", ["reason", "until"])
def test_nothing_is_accepted_without_a_reason_and_a_day(
    project: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    accept(project, "GHSA-1", TODAY)
    path = project / "pyproject.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(f"{missing} =")]
    path.write_text("\n".join(kept), encoding="utf-8")
    assert main() == 1
    assert f"accepted-vulnerabilities.0.{missing}" in capsys.readouterr().err


def test_an_image_is_looked_up_by_its_list(
    osv: FakeOsv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sbom(tmp_path, SBOM)
    assert main(["--sbom", str(path)]) == 0
    assert osv.asked == [
        ("Debian:13", "gcc-14", "14.2.0-19+b1"),
        ("Debian:13", "glibc", "2.41-12"),
        SSL,
        FAST,
    ]
    assert "of no kind that is looked up: pkg:generic/python@3.13.9" in capsys.readouterr().out
    # Debian's records have names of their own.
    osv.add(SSL, "DEBIAN-CVE-2026-2", "3.5.1-1+deb13u2", upstream=["CVE-2026-2"])
    assert main(["--sbom", str(path)]) == 1
    said = capsys.readouterr().out
    assert "DEBIAN-CVE-2026-2 = CVE-2026-2" in said
    assert "make pin-base-image" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is no list of packages"),
        ("[]", "is no list of packages"),
        ('{"packages": [{"externalRefs": [{}]}]}', "is no list of packages"),
        ('{"spdxVersion": "SPDX-2.3"}', "names no package of PyPI or Debian"),
    ],
)
def test_a_list_that_names_nothing_is_not_green(
    tmp_path: Path, content: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sbom.spdx.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["--sbom", str(path)]) == AuditError.exit_code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "purl",
    [
        "pkg:deb/ubuntu/openssl@3.0?distro=ubuntu-24.04",
        "pkg:deb/debian/openssl@3.0",
        "pkg:deb/debian/openssl@3.0?distro=debian-sid",
        "pkg:pypi/fast-json",
        "pkg:pypi",
    ],
)
def test_what_osv_cannot_be_asked_for_is_named(tmp_path: Path, purl: str) -> None:
    packages, others = listed_packages(sbom(tmp_path, [purl, "pkg:pypi/fast-json@1.2.0"]))
    assert packages == {Package(*FAST)}
    assert others == {purl}


@pytest.mark.parametrize(
    ("exported", "said"),
    [
        ("\n", "no package"),
        ("mine @ https://example.com/mine-1.0-py3-none-any.whl\n", "comes from https://example"),
        ("-e ./mine\n", "is no requirement"),
    ],
)
def test_what_cannot_be_looked_up_is_not_green(
    monkeypatch: pytest.MonkeyPatch, exported: str, said: str
) -> None:
    monkeypatch.setattr(audit, "requirements", lambda root: exported)
    with pytest.raises(AuditError, match=said):
        locked_packages(Path())


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"response_data": "down", "status": 503}, "cannot be asked.*503"),
        ({"response_data": "who?", "status": 404}, "cannot be asked.*404"),
        ({"response_data": "<html>"}, "answers nothing that OSV would answer"),
        ({"response_data": "{}"}, "answers nothing that OSV would answer"),
        # One answer for two packages.
        ({"response_data": '{"results": [{}]}'}, "answers nothing that OSV would answer"),
    ],
)
def test_an_outage_is_named_and_is_not_green(
    osv: FakeOsv, answer: dict[str, Any], said: str
) -> None:
    osv.server.clear()
    osv.server.expect_request("/v1/querybatch").respond_with_data(**answer)
    with pytest.raises(AdvisoryServiceError, match=said) as caught:
        audit.Osv(osv.url).vulnerabilities(locked_packages(Path()))
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("exported", "osv")
def test_where_nobody_answers_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:9")
    assert main() == 2
    said = capsys.readouterr().err
    assert "unknown" in said
    assert "OSV_URL" in said


@pytest.mark.usefixtures("exported")
def test_what_fails_for_a_moment_is_asked_again(osv: FakeOsv) -> None:
    osv.add(FAST, "GHSA-1", "1.2.1")
    osv.server.clear()
    osv.server.expect_oneshot_request("/v1/querybatch").respond_with_data("busy", status=503)
    osv.server.expect_oneshot_request("/v1/querybatch").respond_with_data("slow down", status=429)
    FakeOsv(osv.server, osv.known, osv.records)
    assert main() == 1


LOCK = f"""\
version = 1
requires-python = ">=3.11"

[[package]]
name = "fast-json"
version = "1.2.0"
source = {{ registry = "https://pypi.org/simple" }}
sdist = {{ url = "https://example.com/fast_json-1.2.0.tar.gz", hash = "sha256:{64 * "a"}" }}

[[package]]
name = "shop"
version = "0"
source = {{ virtual = "." }}
dependencies = [{{ name = "fast-json" }}]

[package.metadata]
requires-dist = [{{ name = "fast-json" }}]
"""


def test_uv_finds_the_same_in_what_is_played(osv: FakeOsv, tmp_path: Path) -> None:
    """The part of OSV that is played here is the one that another client knows."""
    osv.add(FAST, "GHSA-1", "1.2.1")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "0"\nrequires-python = ">=3.11"\n'
        'dependencies = ["fast-json"]\n',
        encoding="utf-8",
    )
    (tmp_path / "uv.lock").write_text(LOCK, encoding="utf-8")
    command = ["uv", "audit", "--frozen", "--service-url", osv.url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "GHSA-1" in done.stdout + done.stderr
    assert FAST in osv.asked
