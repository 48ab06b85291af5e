"""The scripts as a person calls them: in a process of their own, or in this one, without the seconds of the imports."""

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

ROOT = Path(__file__).parents[1]


class Printed(io.StringIO):
    """What was printed; a class of its own, since W&B replaces its method `write`."""


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / script), *arguments]


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA"))}
    return clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "WANDB_MODE": "offline"} | variables


def start_process(script: str, *arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start `python SCRIPT ARGUMENTS` in a folder, without what it prints."""
    return subprocess.Popen(
        command(script, *arguments), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, text=True, **options
    )


def run_process(script: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python SCRIPT ARGUMENTS` in a folder."""
    return subprocess.run(
        command(script, *arguments),
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
    )


def print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def the(paths: Iterable[Path]) -> Path:
    (path,) = paths
    return path


def _lies_in(module: object, folder: Path) -> bool:
    return folder in Path(getattr(module, "__file__", None) or "/").parents


@contextlib.contextmanager
def as_found() -> Iterator[None]:
    """Leave this process's folder, modules, threads, warnings and loggers as they were, and begin as a new one."""
    folder, threads, path, modules = Path.cwd(), torch.get_num_threads(), list(sys.path), set(sys.modules)
    root = logging.getLogger()
    handlers, known = list(root.handlers), [root, *map(logging.getLogger, list(root.manager.loggerDict))]
    levels = {logger: logger.level for logger in known}
    with warnings.catch_warnings(), mock.patch.object(warnings, "showwarning", print_warning):
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        root.setLevel(logging.WARNING)
        try:
            yield
        finally:
            own = [name for name in set(sys.modules) - modules if _lies_in(sys.modules[name], Path.cwd())]
            for name in own:
                del sys.modules[name]
            os.chdir(folder)
            sys.path[:] = path
            torch.set_num_threads(threads)
            for handler in [own for own in root.handlers if own not in handlers]:
                handler.close()  # Hydra's, whose file is open
            root.handlers[:] = handlers
            for logger, level in levels.items():
                logger.setLevel(level)


def run_here(script: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Do what `python SCRIPT ARGUMENTS` does in a folder: run the same file as `__main__`, with the same arguments."""
    words = command(script, *arguments)[1:]
    out, errors, status = Printed(), Printed(), 0
    with (
        as_found(),
        mock.patch.dict(os.environ, environment(**variables), clear=True),
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        os.chdir(cwd)
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                errors.write(end.code + "\n")
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            traceback.print_exc(file=errors)
            status = 1
    return subprocess.CompletedProcess(words, status, out.getvalue(), errors.getvalue())
