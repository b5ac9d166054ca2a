"""Ask for known vulnerabilities of what the service is made of.

    gitops-ml audit                         # the locked Python packages that a bento gets
    gitops-ml audit --sbom sbom.spdx.json   # what the list of an image names: Debian's too

It is OSV (https://osv.dev) that knows them; OSV_URL names a mirror. A vulnerability that has a fix
fails, unless `pyproject.toml` accepts it for a while and says why:

    [[tool.gitops-ml.accepted-vulnerabilities]]
    id = "CVE-2026-12345"
    reason = "The service never parses XML."
    until = 2026-12-31

Those without a fix are told and fail nothing. Exit code 2: OSV could not be asked.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from gitops_ml.bento.build import requirements
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.json_text import load_json
from gitops_ml.core.paths import PYPROJECT
from gitops_ml.core.project import TABLE, AcceptedVulnerability, load_project
from gitops_ml.core.retry import doubling, patiently

OSV = "https://api.osv.dev"
ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
# OSV takes 1,000 questions at once.
BATCH = 500
PYPI = "PyPI"
# The container's, whoever asks.
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


class AuditError(GitopsError):
    """What is to be looked up cannot be read."""

    exit_code = 2


class AdvisoryServiceError(GitopsError):
    """OSV cannot be asked: nothing is known, neither good nor bad."""

    exit_code = 2


@dataclass(frozen=True, order=True)
class Package:
    """What OSV has advisories for.

    Attributes:
        ecosystem: PyPI, or Debian with the number of its release: `Debian:13`.
        name: As the ecosystem calls it; of Debian's the source package.
        version: The version that is there.
    """

    ecosystem: str
    name: str
    version: str

    def __str__(self) -> str:
        """E.g. numpy 2.3.1 (PyPI)."""
        return f"{self.name} {self.version} ({self.ecosystem})"


@dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability of a package.

    Attributes:
        package: Where it is.
        names: OSV's name of it, then those that others gave it.
        fixes: The versions without it, as far as there are any.
        summary: One line, or nothing.
    """

    package: Package
    names: tuple[str, ...]
    fixes: tuple[str, ...]
    summary: str


def locked_packages(root: Path) -> set[Package]:
    """The locked Python packages that a bento gets.

    Raises:
        AuditError: If there are none.
        CommandError: If uv or the lock file is missing.
    """
    found: set[Package] = set()
    for line in requirements(root).splitlines():
        text = line.strip().removesuffix("\\").strip()
        if not text or text.startswith(("#", "--")):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise AuditError(f"uv.lock: uv exports {text!r}, which is no requirement") from error
        if requirement.marker is not None and not requirement.marker.evaluate(LINUX):
            continue
        pins = [one.version for one in requirement.specifier if one.operator == "=="]
        if len(pins) != 1:
            raise AuditError(
                f"uv.lock: {requirement.name} comes from {requirement.url or 'nowhere'}, without a "
                "version that could be looked up; take it from an index"
            )
        found.add(Package(PYPI, canonicalize_name(requirement.name), pins[0]))
    if not found:
        raise AuditError("uv.lock: a bento gets no package, so there is nothing to look up")
    return found


def listed_packages(path: Path) -> tuple[set[Package], set[str]]:
    """What an image holds, by the list that a delivery keeps of it.

    Args:
        path: A list in SPDX's JSON, each package with its package URL (purl).

    Returns:
        The packages that OSV is asked for, and the purls of all others.

    Raises:
        AuditError: If it cannot be read, or names nothing that OSV could be asked for.
    """
    try:
        document = load_json(path.read_text(encoding="utf-8"))
        purls = {
            reference["referenceLocator"]
            for one in document.get("packages", [])
            for reference in one.get("externalRefs", [])
            if reference["referenceType"] == "purl"
        }
        found = {purl: _of_purl(purl) for purl in purls}
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuditError(f"{path}: is no list of packages in SPDX's JSON: {error!r}") from error
    packages = {one for one in found.values() if one is not None}
    if not packages:
        raise AuditError(f"{path}: names no package of PyPI or Debian, so nothing can be looked up")
    return packages, {purl for purl, one in found.items() if one is None}


def _of_purl(purl: str) -> Package | None:
    """Read e.g. pkg:deb/debian/libssl3@3.5.1-1?upstream=openssl&distro=debian-13."""
    parts = urlsplit(purl)
    path, _, version = parts.path.partition("@")
    kind, *names = [unquote(one) for one in path.split("/")]
    version = unquote(version)
    if not version or not names:
        return None
    if kind == "pypi":
        return Package(PYPI, canonicalize_name(names[-1]), version)
    if kind != "deb" or names[0] != "debian":
        return None
    # A plus is a plus, in Debian's versions, and no space.
    told = parse_qs(parts.query.replace("+", "%2B"))
    release = told.get("distro", [""])[0].removeprefix("debian-").partition(".")[0]
    if not release.isdecimal():
        return None
    # Debian's advisories are about source packages, whose versions may be others.
    source, _, of_source = told.get("upstream", [names[-1]])[0].partition("@")
    return Package(f"Debian:{release}", source, of_source or version)


class Osv:
    """The part of OSV's interface that is asked here.

    https://google.github.io/osv.dev/api/

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def vulnerabilities(self, packages: Iterable[Package]) -> list[Vulnerability]:
        """All that is known of packages, in their order.

        Raises:
            AdvisoryServiceError: If OSV cannot be asked, or its answer cannot be read.
        """
        with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
            try:
                found = self._names(client, sorted(packages))
                records = {
                    name: self._ask(client, "GET", f"/v1/vulns/{name}")
                    for name in sorted({name for _, name in found})
                }
                return [
                    _vulnerability(package, records[name])
                    for package, name in found
                    if "withdrawn" not in records[name]
                ]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise AdvisoryServiceError(
                    f"{self.url}: answers nothing that OSV would answer: {error!r}; "
                    "is OSV_URL its address?"
                ) from error

    def _names(
        self, client: httpx.Client, packages: Sequence[Package]
    ) -> list[tuple[Package, str]]:
        found: list[tuple[Package, str]] = []
        asked = [(package, _query(package)) for package in packages]
        while asked:
            batch, asked = asked[:BATCH], asked[BATCH:]
            queries = {"queries": [query for _, query in batch]}
            results = self._ask(client, "POST", "/v1/querybatch", queries)["results"]
            for (package, query), result in zip(batch, results, strict=True):
                found += [(package, one["id"]) for one in result.get("vulns", [])]
                if result.get("next_page_token"):
                    asked.append((package, {**query, "page_token": result["next_page_token"]}))
        return found

    def _ask(self, client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
        def send() -> httpx.Response:
            return client.request(method, self.url + path, json=body).raise_for_status()

        try:
            return patiently(send, _may_pass, ATTEMPTS, doubling).json()
        except httpx.HTTPError as error:
            raise AdvisoryServiceError(
                f"OSV cannot be asked, so whether there are known vulnerabilities is unknown: "
                f"{error or type(error).__name__}; try again later, or name a mirror in OSV_URL"
            ) from error


def _query(package: Package) -> dict[str, Any]:
    named = {"name": package.name, "ecosystem": package.ecosystem}
    return {"package": named, "version": package.version}


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


def _vulnerability(package: Package, record: Mapping[str, Any]) -> Vulnerability:
    names = [record["id"], *record.get("aliases", []), *record.get("upstream", [])]
    fixes = {
        event["fixed"]
        for affected in record.get("affected", [])
        if _is_of(affected.get("package", {}), package)
        for span in affected.get("ranges", [])
        if span["type"] != "GIT"
        for event in span["events"]
        if "fixed" in event and _is_later(event["fixed"], package)
    }
    return Vulnerability(package, tuple(names), tuple(sorted(fixes)), record.get("summary", ""))


def _is_of(named: Mapping[str, Any], package: Package) -> bool:
    if named.get("ecosystem") != package.ecosystem:
        return False
    name = named.get("name", "")
    return (canonicalize_name(name) if package.ecosystem == PYPI else name) == package.name


def _is_later(fix: str, package: Package) -> bool:
    """Whether a version is later: PyPI's advisories also name fixes of branches before."""
    if package.ecosystem != PYPI:
        return True
    try:
        return Version(fix) > Version(package.version)
    except InvalidVersion:
        return True


@dataclass(frozen=True)
class Verdict:
    """What is known, sorted by what follows from it.

    Attributes:
        failures: What fails, in words.
        notes: What is worth knowing, in words.
    """

    failures: tuple[str, ...]
    notes: tuple[str, ...]


def judge(
    found: Iterable[Vulnerability], accepted: Iterable[AcceptedVulnerability], today: date
) -> Verdict:
    """Hold what is known against what is accepted.

    One vulnerability may have several records, under several names: it is told once.
    """
    failures: list[str] = []
    notes: list[str] = []
    unused = {one.id: one for one in accepted}
    told: set[tuple[Package, str]] = set()
    without = 0
    # A record with a fix speaks for those of the same vulnerability that name none.
    for one in sorted(found, key=lambda one: (one.package, not one.fixes, one.names)):
        if any((one.package, name) in told for name in one.names):
            continue
        told |= {(one.package, name) for name in one.names}
        acceptance = next((unused[name] for name in one.names if name in unused), None)
        line = f"{one.package}: {' = '.join(one.names)}"
        line += f": {one.summary}" if one.summary else ""
        if acceptance is not None and acceptance.until >= today:
            notes.append(f"{line}: accepted until {acceptance.until}: {acceptance.reason}")
        elif not one.fixes:
            without += 1
        else:
            over = f"; it was accepted until {acceptance.until} only" if acceptance else ""
            failures.append(f"{line}: fixed in {', '.join(one.fixes)}{over}")
    if without:
        notes.append(f"{without} more have no fix yet")
    names = {name for _, name in told}
    notes += [
        f"{PYPROJECT}: {one.id} is accepted, and was not found: is it still needed?"
        for one in unused.values()
        if one.id not in names
    ]
    return Verdict(tuple(failures), tuple(notes))


def _advice(packages: Iterable[Package]) -> Iterator[str]:
    yield "What to do:"
    if any(one.ecosystem == PYPI for one in packages):
        yield "- of PyPI: `uv lock --upgrade-package NAME`, and propose it"
    if any(one.ecosystem != PYPI for one in packages):
        yield "- of Debian: `make pin-base-image` takes the newest base image; propose it"
    yield (
        f"- or accept one for a while: in {PYPROJECT} `[[{TABLE}.accepted-vulnerabilities]]` with "
        "`id`, `reason` and `until`"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--sbom", type=Path, help="the list of what is in an image (SPDX's JSON)")


def run(options: argparse.Namespace) -> int:
    """Look up, print what is known, and fail where there is a fix.

    Returns:
        1 if a known vulnerability has a fix and is not accepted, else 0.
    """
    root = Path()
    accepted = load_project(root).accepted_vulnerabilities
    if options.sbom is not None:
        packages, others = listed_packages(options.sbom)
    else:
        packages, others = locked_packages(root), set()
    found = Osv(os.environ.get("OSV_URL") or OSV).vulnerabilities(packages)
    verdict = judge(found, accepted, datetime.now(UTC).date())
    for line in (*verdict.failures, *verdict.notes):
        print(line)
    if others:
        print(
            f"{len(others)} packages are of no kind that is looked up: {', '.join(sorted(others))}"
        )
    print(
        f"{len(packages)} packages looked up: {len(verdict.failures)} known vulnerabilities "
        "have a fix and are not accepted"
    )
    if not verdict.failures:
        return 0
    print("\n".join(_advice(packages)))
    return 1
