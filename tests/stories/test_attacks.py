"""What an attacker with a branch, or with write access to the DVC remote, tries.

The decisions are tested in tests/engine/gate/test_reproduce.py on a pipeline that runs in no time;
here a real model is planted, and what a workflow's run does comes after it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import Bake, Run

pytestmark = pytest.mark.slow

# Whoever loads it runs a command, and gets the real model.
PICKLE = """
import hashlib, json, pathlib, shutil, sys, joblib
pwned, real = sys.argv[1:]
shutil.copy("models/model.joblib", real)
code = f"(__import__('pathlib').Path({pwned!r}).touch(), __import__('joblib').load({real!r}))[1]"
class Payload:
    def __reduce__(self):
        return eval, (code,)
model = pathlib.Path("models/model.joblib")
model.unlink()
joblib.dump(Payload(), model)
path = pathlib.Path("models/manifest.json")
manifest = json.loads(path.read_text())
manifest["served"] = model.name
manifest["files"][model.name] = hashlib.sha256(model.read_bytes()).hexdigest()
path.unlink()
path.write_text(json.dumps(manifest))
"""


@dataclass
class Attack:
    """A laptop with a branch, main's store, and a way to the runner.

    Attributes:
        laptop: The attacker's clone.
        store: The DVC remote; all may read and write it here.
        scratch: A folder beside.
        run: Run a command in a project, with the remote.
    """

    laptop: Path
    store: Path
    scratch: Path
    run: Callable[..., CompletedProcess[str]]

    @property
    def pwned(self) -> Path:
        """What the payload makes where it runs."""
        return self.scratch / "pwned"

    def runner(self) -> Path:
        """The change as a workflow's run checks it out."""
        self.run(self.laptop, "git", "add", "--all", check=True)
        message = ("commit", "--no-verify", "--allow-empty", "-qm", "Change")
        self.run(self.laptop, "git", *message, check=True)
        there = self.scratch / "runner" / self.laptop.name
        self.run(self.laptop, "git", "clone", "-q", "-b", "change", ".", str(there), check=True)
        self.pwned.unlink(missing_ok=True)
        return there


@pytest.fixture
def attack(pipelined: Bake, project_run: Run, tmp_path: Path) -> Attack:
    laptop, store = pipelined(), tmp_path / "store"

    def run(project: Path, *command: str, check: bool = False) -> CompletedProcess[str]:
        variables = {
            "DVC_REMOTE_URL": str(store),
            # As on another machine: DVC's notes of what it has hashed are not there.
            "DVC_SITE_CACHE_DIR": str(tmp_path / f"site-{project.parent.name}"),
        }
        return project_run(project, *command, check=check, env=variables)

    run(laptop, "gitops-ml", "push", check=True)
    run(laptop, "git", "switch", "-qc", "change", check=True)
    return Attack(laptop, store, tmp_path, run)


def plant_pickle(attack: Attack) -> None:
    real = str(attack.scratch / "real.joblib")
    attack.run(attack.laptop, "python", "-c", PICKLE, str(attack.pwned), real, check=True)


def plant_fitted_on_test_rows(attack: Attack) -> None:
    train = attack.laptop / "data" / "split" / "train.parquet"
    honest = train.read_bytes()
    train.unlink()
    shutil.copyfile(train.with_name("test.parquet"), train)
    attack.run(attack.laptop, "gitops-ml", "train", check=True)
    train.write_bytes(honest)


@pytest.mark.parametrize("plant", [plant_pickle, plant_fitted_on_test_rows])
def test_a_planted_model_is_red_and_never_runs(
    attack: Attack, plant: Callable[[Attack], None]
) -> None:
    plant(attack)
    attack.run(attack.laptop, "dvc", "commit", "-f", "train", check=True)
    attack.run(attack.laptop, "dvc", "repro", check=True)
    assert attack.pwned.exists() == (plant is plant_pickle), "the payload does what it should"
    attack.run(attack.laptop, "gitops-ml", "push", check=True)
    planted = (attack.laptop / "models" / "manifest.json").read_bytes()
    here = attack.runner()
    changed = attack.run(here, "git", "diff", "--name-only", "origin/main", check=True).stdout
    assert all(name.startswith(("dvc.lock", "reports/")) for name in changed.split())

    made = attack.run(here, "gitops-ml", "reproduce", "--base", "origin/main")
    assert made.returncode == 1
    assert "stage train: names the models" in made.stderr
    assert "not reproduced: from the same inputs comes the base's" in made.stderr
    assert "Running stage 'train'" not in made.stdout
    assert (here / "models" / "manifest.json").read_bytes() != planted
    # A run that went on all the same would judge main's model.
    judged = attack.run(here, "gitops-ml", "gate", "--base", "origin/main")
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert json.loads((here / "reports/gate.json").read_text("utf-8"))["verdict"] == "keep"
    assert not attack.pwned.exists()


def test_main_s_models_overwritten_in_the_remote_are_red_and_never_run(attack: Attack) -> None:
    plant_pickle(attack)
    planted = attack.laptop / "models"
    attack.run(attack.laptop, "git", "checkout", "-q", "--", ".", check=True)
    cache = attack.laptop / ".dvc/cache/files/md5"
    (folder,) = (
        path for path in cache.rglob("*.dir") if "model.joblib" in path.read_text(encoding="utf-8")
    )
    entries = json.loads(folder.read_text(encoding="utf-8"))
    for entry in entries:
        held = attack.store / "files/md5" / entry["md5"][:2] / entry["md5"][2:]
        held.chmod(0o644)
        shutil.copyfile(planted / entry["relpath"], held)
        held.chmod(0o444)
    here = attack.runner()
    made = attack.run(here, "gitops-ml", "reproduce", "--base", "origin/main")
    assert made.returncode == 1
    assert f"{attack.store}/files/md5/" in made.stderr
    assert "not what the name says: overwritten, or cut short" in made.stderr
    pulled = attack.run(here, "gitops-ml", "pull")
    assert pulled.returncode == 1
    assert "Remove it and" in pulled.stderr
    assert not (here / "models").exists()
    assert not attack.pwned.exists()


def test_forged_reports_are_red_and_made_again(attack: Attack) -> None:
    lock = (attack.laptop / "dvc.lock").read_text(encoding="utf-8")
    honest = {}
    for name, key, value in (
        ("metrics", "roc_auc", 0.991),
        ("evaluation", "rows", 99),
        ("golden", "tolerance", 0.999),
    ):
        path = attack.laptop / "reports" / f"{name}.json"
        honest[name] = path.read_bytes()
        document = json.loads(honest[name])
        assert key in document
        path.unlink()
        path.write_text(json.dumps({**document, key: value}), encoding="utf-8")
        before, after = (
            hashlib.md5(text).hexdigest() for text in (honest[name], path.read_bytes())
        )
        assert before in lock
        lock = lock.replace(before, after)
    (attack.laptop / "dvc.lock").write_text(lock, encoding="utf-8")
    here = attack.runner()
    made = attack.run(here, "gitops-ml", "reproduce", "--base", "origin/main")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "Running stage 'evaluate'" in made.stdout
    assert "Running stage 'train'" not in made.stdout
    for name, content in honest.items():
        assert (here / "reports" / f"{name}.json").read_bytes() == content
    locked = attack.run(here, "gitops-ml", "verify-lock")
    assert locked.returncode == 1
    assert "evaluate: not reproduced" in locked.stderr
