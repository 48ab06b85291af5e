"""CONTRIBUTING.md is true: its recipe is followed in a copy, its commands are those of CI, its folders exist."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from command_line import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text()


def test_recipe_for_a_criterion_works_and_edits_no_file(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache", ".venv", "outputs", "multirun")
    )
    steps = re.findall(r"(?ms)^\d\. .*?`(\S+/\S+\.\w+)`.*?^   ```\w+\n(.*?)^   ```$", GUIDE)
    assert [Path(name).suffix for name, _ in steps] == [".py", ".py", ".yaml"]
    for name, content in steps:
        assert not (copy / name).exists()
        (copy / name).write_text(textwrap.dedent(content))
    (command,) = re.findall(r"^Then `pytest (.*?)`", GUIDE, re.MULTILINE)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", *command.split()],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    passed = re.findall(r"::(\w+)(?:\[.*\])? PASSED", result.stdout)
    assert "test_deviation_is_that_of_numpy" in passed
    promises = {"test_every_method_ends_in_an_equal_slim_model", "test_every_method_resumes_to_the_same_bits"}
    assert promises < set(passed)


def test_commands_are_those_of_ci() -> None:
    ran = (ROOT / ".ci" / "run").read_text()
    (checks,) = re.findall(r"^ruff .*$", GUIDE, re.MULTILINE)
    assert all(f"\n{check}" in ran for check in checks.split(" && "))
    hooks = re.findall(r"entry: (.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert [hook.replace(" --force-exclude", "").split()[:2] for hook in hooks] == [
        check.replace(" --check", "").split()[:2] for check in checks.replace(" .", "").split(" && ")
    ]
    (install, tests) = re.findall(r"^(?:pip|pytest) .*$", GUIDE, re.MULTILINE)
    assert f"{install} && {tests}" in (ROOT / "README.md").read_text()


def test_rooms_are_the_folders() -> None:
    rooms = re.findall(r"^\| `(\w+)/` \|", GUIDE, re.MULTILINE)
    folders = {path.parent.name for path in (ROOT / "lightning_prune").glob("*/__init__.py")}
    assert folders - {"models", "data"} == set(rooms)


def test_files_that_are_named_exist() -> None:
    named = set(re.findall(r"`([\w./]+(?:/|\.\w+))`", GUIDE)) - {"lightning_prune/pruning/criteria/deviation.py"}
    inside = [ROOT, *(path.parent for path in (ROOT / "lightning_prune").rglob("__init__.py"))]
    new = {"tests/pruning/criteria/test_deviation.py", "conf/criterion/deviation.yaml"}
    assert all(any((folder / name).exists() for folder in inside) for name in named - new)
