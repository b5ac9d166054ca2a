"""Where a lock may take packages from."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import subcommand
from conftest import ENGINE, TEMPLATE

from gitops_ml.core.lock_sources import (
    LockSourcesError,
    Sources,
    find_problems,
    read_sources,
    verify,
)

main = subcommand("verify-sources")

HASH = f"sha256:{'ab' * 32}"
FILES = "https://files.pythonhosted.org/packages/9a/cb/22"
OURS = "https://packages.example.com/ml/simple"
OUR_FILES = "https://packages.example.com/ml/files"


def entry(
    source: str = 'registry = "https://pypi.org/simple"',
    wheel: str = f"{FILES}/numpy-2.2.1-py3-none-any.whl",
    sha: str | None = HASH,
) -> str:
    """A package of a lock, with one wheel."""
    known = "" if sha is None else f', hash = "{sha}"'
    return (
        f'[[package]]\nname = "numpy"\nversion = "2.2.1"\nsource = {{ {source} }}\n'
        f'wheels = [{{ url = "{wheel}"{known}, size = 1 }}]\n'
    )


LOCAL = '[[package]]\nname = "late"\nversion = "0.1.0"\nsource = { virtual = "." }\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout of the base, whose settings name PyPI only."""
    folder = tmp_path / "base"
    folder.mkdir()
    settings(folder, "")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A change with a lock that is as it must be."""
    folder = tmp_path / "change"
    folder.mkdir()
    settings(folder, "")
    write_lock(folder, LOCAL + entry())
    return folder


def settings(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "late"\n{text}', encoding="utf-8")


def write_lock(folder: Path, packages: str) -> None:
    (folder / "uv.lock").write_text(f"version = 1\nrevision = 3\n{packages}", encoding="utf-8")


def refusal(root: Path, home: Path, **variables: str) -> str:
    with pytest.raises(LockSourcesError) as caught:
        verify(root, home, variables)
    return str(caught.value)


def test_what_the_template_locks_is_from_pypi() -> None:
    assert verify(TEMPLATE, TEMPLATE, {}) > 200


def test_what_is_in_the_project_needs_no_index(root: Path, home: Path) -> None:
    folder = '[[package]]\nname = "gitops-ml"\nversion = "1"\nsource = { editable = "engine" }\n'
    write_lock(root, LOCAL + folder + entry())
    assert verify(root, home, {}) == 3


@pytest.mark.parametrize(
    ("package", "address"),
    [
        (entry('registry = "https://evil.example/simple"'), "https://evil.example/simple"),
        (entry('registry = "http://pypi.org/simple"'), "http://pypi.org/simple"),
        (entry('registry = "https://pypi.org/simple/../x"'), "https://pypi.org/simple/../x"),
        (entry('registry = "wheels"'), "wheels"),
        (entry(wheel="https://evil.example/numpy-2.2.1-py3-none-any.whl"), "https://evil.example"),
        (entry(wheel="https://files.pythonhosted.org.evil.example/packages/numpy-1"), ".evil.exa"),
        (entry(wheel="https://files.pythonhosted.org@evil.example/packages/numpy-1.whl"), "evil.e"),
        (entry(wheel="https://files.pythonhosted.org:444/packages/numpy-1.whl"), ":444/"),
        (entry(wheel="https://files.pythonhosted.org/numpy-1.whl"), "org/numpy-1.whl"),
        (entry(wheel="https://files.pythonhosted.org/packages/../numpy-1.whl"), "/../numpy"),
        (entry(wheel="https://files.pythonhosted.org/packages/%2E%2e/numpy-1.whl"), "%2E%2e"),
        (entry(wheel="https://files.pythonhosted.org\\\\@evil.example/packages/numpy-1"), "evil.e"),
        (entry(wheel="http://files.pythonhosted.org/packages/9a/numpy-2.2.1.whl"), "http://files"),
        (entry(wheel="file:///tmp/numpy-2.2.1-py3-none-any.whl"), "file:///tmp"),
        (entry('git = "https://github.com/evil/numpy?rev=1#' + "a" * 40 + '"'), "evil/numpy"),
        (entry('url = "https://evil.example/numpy-2.2.1.tar.gz"'), "evil.example/numpy"),
        (entry('path = "wheels/numpy-2.2.1-py3-none-any.whl"'), "wheels/numpy"),
        (entry('directory = "../numpy"'), "../numpy"),
        (entry('editable = "/tmp/numpy"'), "/tmp/numpy"),
        (entry('torrent = "x"'), "torrent x"),
        (entry('virtual = ".", registry = "https://evil.example/simple"'), "one source"),
        (entry(""), "one source"),
    ],
)
def test_what_comes_from_elsewhere_is_named(
    root: Path, home: Path, package: str, address: str
) -> None:
    write_lock(root, LOCAL + package)
    said = refusal(root, home)
    assert said.startswith("uv.lock: numpy 2.2.1: ")
    assert address in said.splitlines()[0]
    assert "Nothing was installed." in said
    assert "package-sources" in said


def test_a_source_distribution_counts_as_well(root: Path, home: Path) -> None:
    sdist = f'sdist = {{ url = "https://evil.example/numpy-2.tar.gz", hash = "{HASH}" }}\n'
    write_lock(root, LOCAL + entry() + sdist)
    assert "https://evil.example/numpy-2.tar.gz" in refusal(root, home)


def test_a_second_address_of_a_file_is_no_way_around(root: Path, home: Path) -> None:
    text = entry().replace("wheels = [{ ", 'wheels = [{ path = "/tmp/numpy-2.2.1.whl", ')
    write_lock(root, text)
    assert "/tmp/numpy-2.2.1.whl: is not a file" in refusal(root, home)


@pytest.mark.parametrize("sha", [None, "", "md5:" + "a" * 32, "sha256:abc", HASH.upper()])
def test_a_file_needs_its_hash(root: Path, home: Path, sha: str | None) -> None:
    write_lock(root, entry(sha=sha))
    assert "numpy-2.2.1-py3-none-any.whl: has no hash" in refusal(root, home)


@pytest.mark.parametrize("file", ["numpi-2.2.1-py3-none-any.whl", "numpyx-1.tar.gz", "x.whl"])
def test_a_file_of_another_package_is_not_taken_for_it(root: Path, home: Path, file: str) -> None:
    write_lock(root, entry(wheel=f"{FILES}/{file}"))
    assert f"{file}: is a file of another package" in refusal(root, home)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("scikit-learn", "scikit_learn-1.7-cp311-cp311-manylinux.whl"),
        ("ruamel-yaml", "ruamel.yaml-0.18.tar.gz"),
        ("antlr4-python3-runtime", "antlr4-python3-runtime-4.9.3.tar.gz"),
        ("torch", "torch-2.7%2Bcpu-cp311-cp311-linux_x86_64.whl"),
    ],
)
def test_names_of_files_are_spelled_in_many_ways(
    root: Path, home: Path, name: str, file: str
) -> None:
    write_lock(root, entry(wheel=f"{FILES}/{file}").replace('"numpy"', f'"{name}"'))
    assert verify(root, home, {}) == 1


INDEX = f'[[tool.uv.index]]\nname = "ours"\nurl = "{OURS}"\n'
CONFIGURED: Mapping[str, str] = {
    "another index": INDEX,
    "only that index": f"{INDEX}default = true\n",
    "an extra index": f'[tool.uv]\nextra-index-url = ["{OURS}/"]\n',
    "its index": f'[tool.uv]\nindex-url = "{OURS}"\n',
}
OUR_PACKAGE = entry(f'registry = "{OURS}"', f"{OUR_FILES}/numpy-2.2.1-py3-none-any.whl")


@pytest.mark.parametrize("configured", CONFIGURED)
def test_the_base_s_indexes_count(root: Path, home: Path, configured: str) -> None:
    write_lock(root, OUR_PACKAGE)
    assert f"the index {OURS}: is none that is configured" in refusal(root, home)
    settings(home, CONFIGURED[configured])
    assert verify(root, home, {}) == 1
    # With a default of its own, PyPI is none any more.
    write_lock(root, entry())
    replaced = configured in ("only that index", "its index")
    assert bool(list(find_problems(_lock(entry()), read_sources(home, {})))) == replaced


def _lock(packages: str) -> dict[str, object]:
    return tomllib.loads(f"version = 1\n{packages}")


def test_the_change_s_own_indexes_do_not(root: Path, home: Path) -> None:
    settings(root, INDEX)
    write_lock(root, OUR_PACKAGE)
    said = refusal(root, home).splitlines()
    assert said[0].startswith(f"pyproject.toml or uv.toml: the index {OURS}: is none")
    assert said[1].startswith(f"uv.lock: numpy 2.2.1: the index {OURS}: is none")
    assert verify(root, root, {}) == 1


def test_a_uv_toml_stands_above_pyproject(root: Path, home: Path) -> None:
    settings(home, f"{INDEX}default = true\n")
    (home / "uv.toml").write_text(f'[[index]]\nurl = "{PYTORCH}"\n', encoding="utf-8")
    assert read_sources(home, {}).indexes == ("https://pypi.org/simple", PYTORCH)
    (root / "uv.toml").write_text('[[index]]\nurl = "https://evil.example"\n', encoding="utf-8")
    assert "the index https://evil.example: is none" in refusal(root, home)


PYTORCH = "https://download.pytorch.org/whl/cpu"


@pytest.mark.parametrize(
    ("variables", "indexes"),
    [
        ({}, ("https://pypi.org/simple",)),
        ({"UV_DEFAULT_INDEX": OURS}, (OURS,)),
        ({"UV_DEFAULT_INDEX": f"ours={OURS}"}, (OURS,)),
        ({"UV_INDEX_URL": OURS}, (OURS,)),
        ({"UV_INDEX": f"a={OURS} {PYTORCH}"}, ("https://pypi.org/simple", OURS, PYTORCH)),
        ({"UV_EXTRA_INDEX_URL": f"{OURS}?a=b"}, ("https://pypi.org/simple", f"{OURS}?a=b")),
    ],
)
def test_the_variables_of_uv_count(
    home: Path, variables: Mapping[str, str], indexes: tuple[str, ...]
) -> None:
    assert read_sources(home, variables).indexes == indexes


def test_files_are_below_the_folder_of_their_index(root: Path, home: Path) -> None:
    settings(home, INDEX)
    for wheel, good in (
        (f"{OUR_FILES}/numpy-2.2.1.whl", True),
        (f"{OURS}/numpy/numpy-2.2.1.whl", True),
        ("https://packages.example.com/other/numpy-2.2.1.whl", False),
        ("https://packages.example.com/mlx/numpy-2.2.1.whl", False),
        (f"{FILES}/numpy-2.2.1.whl", False),
    ):
        write_lock(root, entry(f'registry = "{OURS}"', wheel))
        if good:
            assert verify(root, home, {}) == 1
        else:
            assert f"{wheel}: is not a file of the configured index" in refusal(root, home)


@pytest.mark.parametrize(
    ("file", "good"),
    [
        ('path = "numpy-2.2.1-py3-none-any.whl"', True),
        ('path = "more/numpy-2.2.1-py3-none-any.whl"', True),
        ('path = "../numpy-2.2.1-py3-none-any.whl"', False),
        ('path = "/tmp/wheels/numpy-2.2.1-py3-none-any.whl"', False),
        ('path = "other-2.2.1-py3-none-any.whl"', False),
        ('path = "numpy-2.2.1.whl", url = "https://evil.example/numpy-2.2.1.whl"', False),
        (f'url = "{FILES}/numpy-2.2.1-py3-none-any.whl"', False),
    ],
)
def test_a_folder_of_wheels_can_be_an_index(root: Path, home: Path, file: str, good: bool) -> None:
    """As uv locks it: relative to the folder, without a hash, since git keeps the files."""
    package = '[[package]]\nname = "numpy"\nversion = "2.2.1"\nsource = { registry = "wheels" }\n'
    write_lock(root, f"{package}wheels = [{{ {file} }}]\n")
    assert "the index wheels: is none that is configured" in refusal(root, home)
    settings(home, '[[tool.uv.index]]\nurl = "wheels"\nformat = "flat"\n')
    if good:
        assert verify(root, home, {}) == 1
    else:
        refusal(root, home)


COMMIT = "a" * 40


@pytest.mark.parametrize(
    "package",
    [
        f'git = "https://github.com/acme/numpy?subdirectory=a&tag=1#{COMMIT}"',
        'url = "https://github.com/acme/numpy/archive/1.zip", subdirectory = "a"',
        'registry = "https://github.com/acme/simple"',
        'path = "wheels/numpy-2.2.1-py3-none-any.whl"',
    ],
)
def test_more_sources_can_be_named_by_the_base(root: Path, home: Path, package: str) -> None:
    wheel = "https://github.com/acme/numpy-2.whl"
    write_lock(root, entry(package, wheel))
    named = 'package-sources = ["https://github.com/acme/", "wheels"]\n'
    settings(root, f"[tool.gitops-ml]\n{named}")
    assert "numpy 2.2.1" in refusal(root, home)
    settings(home, f"[tool.gitops-ml]\n{named}")
    assert verify(root, home, {}) == 1


@pytest.mark.parametrize("address", ["https://github.com/acme/numpy", "x#main", f"x#{COMMIT[:9]}"])
def test_a_repository_needs_a_commit(address: str) -> None:
    lock = _lock(entry(f'git = "{address}"'))
    found = list(find_problems(lock, Sources((), ("https://github.com/acme", "x"))))
    assert found == [f"numpy 2.2.1: the repository {address}: names no commit"]


def test_a_password_is_not_repeated(root: Path, home: Path) -> None:
    write_lock(root, entry('registry = "https://ada:secret@evil.example/simple"'))
    said = refusal(root, home, UV_INDEX="https://ada:secret@packages.example.com/simple")
    assert "secret" not in said
    assert "https://***@evil.example/simple" in said


def test_many_problems_are_counted(root: Path, home: Path) -> None:
    write_lock(root, 30 * entry('registry = "https://evil.example/simple"'))
    lines = refusal(root, home).splitlines()
    assert sum(line.startswith("uv.lock: ") for line in lines) == 20
    assert "... and 10 more" in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<<<<<<< HEAD\n", "uv.lock: cannot be read"),
        ("version = 2\n", "is no lock of version 1"),
        ("version = 1\npackage = 3\n", "is no lock of version 1"),
        ("version = 1\npackage = [3]\n", "a package without a name"),
        (f"version = 1\n{LOCAL}wheels = 3\n", "late 0.1.0: its files are no list"),
        (None, "uv.lock: no such file"),
    ],
)
def test_a_lock_that_cannot_be_read_is_refused(
    root: Path, home: Path, text: str | None, message: str
) -> None:
    (root / "uv.lock").unlink()
    if text is not None:
        (root / "uv.lock").write_text(text, encoding="utf-8")
    assert message in refusal(root, home)


def test_the_command_says_what_it_found(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert main(["--judge", str(home)]) == 0
    assert "The 2 packages of uv.lock" in capsys.readouterr().out
    write_lock(root, entry(sha=None))
    assert main([]) == 1
    assert "has no hash" in capsys.readouterr().err


def test_it_needs_nothing_but_python(root: Path, home: Path) -> None:
    """It runs before anything is installed: no package of an environment is there."""
    start = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from gitops_ml.cli import main; "
        "sys.exit(main())"
    )
    base = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run(
        [base, "-I", "-S", "-c", start, ENGINE / "src", "verify-sources", "--judge", home],
        cwd=root,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
