"""A Python whose programs start as forks of a process that has imported their libraries.

Imports are a third of what the programs of a generated project cost, and most of what a few unit
tests do. With `warm`, a script takes the place of an environment's `bin/python`, which all of its
programs run through. Each program
still has a process of its own, with its arguments, variables, folder, streams and signals, and
imports the engine and the project itself. What would make a difference is started by the
interpreter as ever: other programs, other values of what libraries read when they are imported,
inherited files, other limits, another network.

The programs of a copy of the environment are forks of the same process.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, NoReturn

# Not the engine, whose sources differ from call to call; and not polars or ONNX Runtime, which
# start threads when imported, and a fork leaves all threads but one behind.
LIBRARIES = (
    *("joblib", "matplotlib.figure", "pydantic", "pytest", "pytest_cov.plugin", "yaml"),
    *("scipy.stats", "skl2onnx", "sklearn.compose", "sklearn.ensemble", "sklearn.linear_model"),
    *("dvc.cachemgr", "dvc.cli.parser", "dvc.dependency", "dvc.logger", "dvc.output"),
    *(f"dvc.repo.{one}" for one in ("checkout", "fetch", "ls_url", "push", "reproduce", "status")),
    *("dvc.stage.cache", "dvc.stage.loader", "dvc_data.index.checkout", "dvc_data.index.fetch"),
)
# What is read when Python starts or a library is imported.
READ_AT_START = (
    *("COV_", "COVERAGE_", "GOMP_", "JOBLIB_", "KMP_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_"),
    *("NPY_", "NUMPY_", "OMP_", "OPENBLAS_", "PYTHON", "SCIPY_", "SKLEARN_", "TZ"),
)
HANDED_ON = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
NAMESPACES = ("mnt", "net", "pid", "user")
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
REFUSED = b"refused"
# Before libraries that are imported add to them.
VARIABLES = dict(os.environ)
SCRIPT = """\
#!/bin/bash
case "$1:$2:$3" in
  */bin/dvc:* | */bin/gitops-ml:* | */bin/pytest:* | \\
  -m:dvc:* | -m:pytest:* | -m:gitops_ml:* | -m:gitops_ml.*:* | \\
  -P:-m:dvc | -P:-m:pytest | -P:-m:gitops_ml | -P:-m:gitops_ml.*)
    exec {python} -I -S -B {here} ask {name} "$0" "$@" ;;
esac
exec -a "$0" {python} "$@"
"""


def warm(venv: Path, env: Mapping[str, str], lives_as_long_as: int) -> None:
    """Let the programs of an environment start as forks.

    Args:
        venv: The environment, made to be relocatable.
        env: The variables of its programs.
        lives_as_long_as: The process with whose end all is over.
    """
    import subprocess
    from pathlib import Path

    python = venv / "bin" / "python"
    interpreter = python.resolve()
    here = Path(__file__).resolve()
    name = f"warm-python-{os.urandom(16).hex()}"
    server = subprocess.Popen(
        [python, here, "serve", name, str(lives_as_long_as)],
        cwd="/",
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    python.unlink()
    python.write_text(SCRIPT.format(python=interpreter, here=here, name=name), encoding="utf-8")
    python.chmod(0o755)


def make_warm(venv: Path, env: Mapping[str, str], lives_as_long_as: int) -> Path:
    """Make an environment with the libraries of this one, whose programs start as forks.

    Args:
        venv: Its folder.
        env: The variables of its programs.
        lives_as_long_as: The process with whose end all is over.

    Returns:
        Its Python.
    """
    import subprocess
    import sysconfig
    from pathlib import Path

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    others = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    (libraries / "others.pth").write_text(others, encoding="utf-8")
    warm(venv, env, lives_as_long_as)
    return venv / "bin" / "python"


def ask(name: str, python: str, arguments: list[str]) -> NoReturn:
    """Be the other end of a program that runs as a fork, else start it."""
    status = _ask(name, python, arguments)
    if status is None:
        os.execv(sys.executable, [python, *arguments])
    if os.WIFSIGNALED(status):
        with contextlib.suppress(OSError):  # SIGKILL has no other handler
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _ask(name: str, python: str, arguments: list[str]) -> int | None:
    """The program's end, as `os.wait` tells it; None if it was not started."""
    listed = [f"/proc/self/fd/{file}" for file in os.listdir("/proc/self/fd")]
    if sum(map(os.path.exists, listed)) != 3:
        return None
    umask = os.umask(0)
    os.umask(umask)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        order = marshal.dumps((python, arguments, os.getcwd(), umask, dict(os.environ)))
        server.connect(f"\0{name}")
        for number in FORWARDED:
            signal.signal(number, lambda caught, _: server.send(bytes([caught])))
        socket.send_fds(server, [order], [0, 1, 2])
        answer = server.recv(64)
    except OSError:
        answer = REFUSED
    if answer == REFUSED:
        for number in FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        return None
    return int(answer or signal.SIGKILL)  # the end of the server is the end of its forks


class Server:
    """Forks programs, hands signals on to them, and tells how they ended."""

    def __init__(self, name: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(f"\0{name}")
        self.listener.listen(64)
        self.programs: dict[socket.socket, int] = {}
        self.children, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        os.set_blocking(self.children, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup)

    def serve(self, lives_as_long_as: int) -> None:
        """Until that process has ended."""
        import select

        while os.path.exists(f"/proc/{lives_as_long_as}"):
            sources: list[Any] = [self.listener, self.children, *self.programs]
            for source in select.select(sources, [], [], 5)[0]:
                if source is self.listener:
                    self.start(self.listener.accept()[0])
                elif source is self.children:
                    self.reap()
                elif source in self.programs:
                    self.hand_on(source)
        for child in self.programs.values():
            kill(child)

    def start(self, asker: socket.socket) -> None:
        """Fork the program that is asked for."""
        files: list[int] = []
        try:
            order, files, *_ = socket.recv_fds(asker, 1 << 20, 3)
            python, arguments, folder, umask, environment = marshal.loads(order)
            child = os.fork() if is_alike(asker, environment) else None
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # Whoever asked is told of the end by the server alone.
                for mine in (self.listener, asker, *self.programs):
                    mine.close()
                become(python, arguments, folder, umask, environment, files)
        except (OSError, EOFError, ValueError):  # nothing came, or whoever asked is gone
            child = None
        for file in files:
            os.close(file)
        if child is None:
            answer(asker, REFUSED)
        else:
            self.programs[asker] = child

    def reap(self) -> None:
        """Tell how programs ended."""
        os.read(self.children, 1024)
        while self.programs:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            (asker,) = (asker for asker, own in self.programs.items() if own == child)
            del self.programs[asker]
            answer(asker, str(status).encode())

    def hand_on(self, asker: socket.socket) -> None:
        """Hand a signal on; whoever asked and is gone was killed, with all that it had started."""
        try:
            said = asker.recv(1)
        except OSError:
            said = b""
        if said:
            os.kill(self.programs[asker], said[0])
        else:
            asker.close()
            kill(self.programs.pop(asker))


def answer(asker: socket.socket, said: bytes) -> None:
    """The last word to whoever asked, if it is still there."""
    with contextlib.suppress(OSError):
        asker.send(said)
    asker.close()


def kill(child: int) -> None:
    """With all that it started; it may not have become the leader of its group yet."""
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            end(child, signal.SIGKILL)
    os.waitpid(child, 0)


def is_alike(asker: socket.socket, environment: Mapping[str, str]) -> bool:
    """Whether a fork of this process is what whoever asks would have started."""
    import struct

    for name in environment.keys() | VARIABLES.keys():
        matters = name.startswith(READ_AT_START) and name not in HANDED_ON
        if matters and environment.get(name) != VARIABLES.get(name):
            return False
    credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    its, own = f"/proc/{struct.unpack('3i', credentials)[0]}", "/proc/self"
    with open(f"{its}/limits") as theirs, open(f"{own}/limits") as ours:
        if theirs.read() != ours.read():
            return False
    return all(os.readlink(f"{its}/ns/{n}") == os.readlink(f"{own}/ns/{n}") for n in NAMESPACES)


def become(
    python: str,
    arguments: list[str],
    folder: str,
    umask: int,
    environment: dict[str, str],
    files: Sequence[int],
) -> NoReturn:
    """Be the program that was asked for, as if it had been started."""
    import atexit
    import threading

    code: object = 1
    try:
        os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.umask(umask)
        for name in VARIABLES.keys() - environment.keys():
            os.environ.pop(name, None)
        os.environ.update(environment)
        run_program(python, arguments)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            code = 130
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    os._exit((code or 0) & 0xFF)


def run_program(python: str, arguments: list[str]) -> None:
    """Set up what depends on the environment's place, then run a script or a module."""
    import importlib
    import runpy
    import site
    import types

    venv = os.path.dirname(os.path.dirname(os.path.abspath(python)))
    own = sys.prefix
    libraries = [p for p in sys.path if p.startswith(own)]
    rest = [p for p in sys.path if not p.startswith(own)]
    sys.orig_argv = [python, *arguments]
    sys.executable, sys.prefix, sys.exec_prefix = python, venv, venv
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
    added = os.environ.get("PYTHONPATH", "")
    sys.path[:] = [os.path.abspath(p) for p in added.split(os.pathsep) if p] + rest
    for library in libraries:
        if os.path.basename(library) == "site-packages":
            site.addsitedir(venv + library.removeprefix(own))
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.modules["__main__"] = types.ModuleType("__main__")
    safe = arguments[0] == "-P"
    words = arguments[1:] if safe else arguments
    if words[0] == "-m":
        sys.argv = ["-m", *words[2:]]
        if not safe:
            sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.realpath(words[0])))
        runpy.run_path(words[0], run_name="__main__")


def main() -> None:
    """`ask NAME PYTHON ARGUMENT...`, or `serve NAME PROCESS`."""
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3], sys.argv[4:])
    import gc
    import importlib

    server = Server(sys.argv[2])
    del sys.path[0]  # the folder of this file
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    print("ready", flush=True)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    server.serve(int(sys.argv[3]))


if __name__ == "__main__":
    main()
