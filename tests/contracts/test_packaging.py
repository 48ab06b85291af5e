"""What pip reads: no release that is known to be malicious, and types for those who import the package."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(
    (ROOT / "pyproject.toml").read_text()
)

MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
"""Releases by name, GHSA-w37p-236h-pfx3, and those of the package that `lightning` takes along."""


def admitted(found: list[Requirement]) -> list[str]:
    """Return the malicious releases that requirements let in, all of a package that they do not limit among them."""
    problems = []
    for name, releases in MALICIOUS.items():
        own = [requirement.specifier for requirement in found if requirement.name == name]
        problems += [f"{name} {release}" for release in releases if all(release in specifier for specifier in own)]
    return problems


def test_malicious_releases_are_excluded() -> None:
    # The dependencies alone: constraints.txt pins one release, but only for those who use it.
    assert admitted([Requirement(line) for line in PROJECT["project"]["dependencies"]]) == []


@pytest.mark.parametrize("lines", [[], ["lightning>=2.6"], ["lightning>=2.6,!=2.6.2"], ["lightning==2.6.3"]])
def test_specifiers_that_admit_them_are_seen(lines: list[str]) -> None:
    fine = Requirement("pytorch-lightning!=2.6.2,!=2.6.3")
    assert admitted([fine, *map(Requirement, lines)])


def test_types_are_shipped() -> None:
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["lightning_prune"]
    assert (ROOT / "lightning_prune" / "py.typed").is_file()


def test_importing_the_callbacks_imports_nothing_but_torch_and_lightning() -> None:
    heavy = {"hydra", "omegaconf", "wandb", "matplotlib", "sklearn", "pyarrow", "onnx", "onnxruntime", "PIL"}
    code = (
        "import sys, lightning.pytorch; before = set(sys.modules); import lightning_prune; "
        "[getattr(lightning_prune, name) for name in lightning_prune.__all__]; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "lightning_prune" in done.stdout.split()
    assert not heavy & set(done.stdout.split())
