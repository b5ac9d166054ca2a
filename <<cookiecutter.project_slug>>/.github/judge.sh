#!/bin/sh
# Run a command of the engine of another commit, in that commit's locked environment, on the files of
# this folder: what judges a change is the engine of its base (docs/pull-requests.md).
#
#     JUDGE=origin/main sh .github/judge.sh gate --base origin/main
#
# The commit is checked out outside of this folder, so that uv meets nothing of this folder when it
# makes the environment: no uv.toml, pyproject.toml, .python-version or .venv. Python runs isolated
# (-I), so it does not meet src/, PYTHONPATH, a sitecustomize.py or a module in this folder either.
#
# `verify-sources` runs before anything is installed, by the Python of this machine.
set -eu

knows_sources() { [ -f "$1/engine/src/gitops_ml/core/lock_sources.py" ]; }

# Run the engine in the project of a folder, without any library.
run_bare() {
  engine=$1/engine/src
  shift
  if ! python3 -I -c 'import tomllib' 2>/dev/null; then
    echo "python3 is missing or older than 3.11: install a newer one" >&2
    exit 2
  fi
  start='import sys; sys.path.insert(0, sys.argv.pop(1)); from gitops_ml.cli import main; sys.exit(main())'
  python3 -I -c "$start" "$engine" "$@"
}

if [ -z "${JUDGE:-}" ] && [ "$1" = verify-sources ] && knows_sources .; then
  run_bare . "$@"
  exit
fi
[ -n "${JUDGE:-}" ] || exec uv run gitops-ml "$@"

judge=$(mktemp -d "${TMPDIR:-/tmp}/judge-XXXXXX")
forget() {
  git worktree remove --force --force "$judge/base" 2>/dev/null || rm -rf "$judge/base"
  rm -rf "$judge"
  git worktree prune
}
trap forget EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Variables by which uv or Python would use another project, environment or module.
steering='PYTHON[A-Z0-9_]*|UV_(PROJECT[A-Z_]*|NO_SYNC|NO_PROJECT|WORKING_DIR[A-Z]*|CONFIG_FILE|ENV_FILE|PYTHON)|VIRTUAL_ENV'
for name in $(env | sed -nE "s/^($steering)=.*/\1/p"); do
  unset "$name"
done

why=
prefix=$(git rev-parse --show-prefix)
if ! commit=$(git rev-parse --verify --quiet --end-of-options "$JUDGE^{commit}"); then
  why="git knows no commit $JUDGE"
else
  # Without the repository's hooks: they are for people who change branches.
  git -c core.hooksPath=/dev/null worktree add --quiet --detach "$judge/base" "$commit"
  if ! grep -q '^name = "gitops-ml"$' "$judge/base/${prefix}uv.lock" 2>/dev/null; then
    why="$JUDGE locks no gitops-ml"
  fi
fi

home="$judge/base/${prefix%/}"
# A base whose lock holds the marks of a conflict, or a package that is gone, must not keep out the
# change that mends it.
if [ -z "$why" ] && [ "$1" != verify-sources ] &&
  ! (cd "$home" && uv sync --locked --quiet --no-default-groups --group train); then
  why="the environment of the base, $JUDGE, cannot be made"
  # The gate asks a maintainer; what comes after it goes by what it was told.
  if [ "$1" != gate ] && ! grep -q '"own_engine": *true' reports/gate.json 2>/dev/null; then
    echo "$1 was not run: $why" >&2
    exit 2
  fi
fi
if [ "$1" = verify-sources ] && { knows_sources "$home" || knows_sources .; }; then
  [ ! -f "$home/pyproject.toml" ] || set -- "$@" --judge "$home"
  engine=$home
  if ! knows_sources "$home"; then
    echo "The engine of this change verifies its own lock: ${why:-that of $JUDGE cannot yet}" >&2
    engine=.
  fi
  run_bare "$engine" "$@"
elif [ -n "$why" ]; then
  [ "$1" != gate ] || set -- "$@" --own-engine "$why"
  uv run gitops-ml "$@"
else
  [ "$1" != gate ] || set -- "$@" --judge "$home"
  "$home/.venv/bin/python" -I -m gitops_ml "$@"
fi
