"""A torchvision whose compiled part is missing does not keep Lightning from being imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REGISTERS = """
import torch
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda dets, scores, iou_threshold: dets)
"""
COMPILED = """
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
OTHERWISE_BROKEN = "import torch\nraise RuntimeError('something else')"


def imported(folder: Path, source: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a line behind the import of the mending module, with a stand-in for torchvision."""
    (folder / "torchvision.py").write_text(source)
    path = os.pathsep.join([str(folder), str(ROOT)])
    file = ROOT / "lightning_prune" / "torchvision_operators.py"
    before = f"import runpy; declared = runpy.run_path({str(file)!r})['DECLARED']; "
    return subprocess.run(
        [sys.executable, "-c", before + code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("source", "declared"),
    [(REGISTERS, "nms qnms"), (COMPILED + REGISTERS, ""), ("", "")],
    ids=["broken", "whole", "without operators"],
)
def test_operators_are_declared_where_they_are_missing_and_only_there(
    tmp_path: Path, source: str, declared: str
) -> None:
    result = imported(tmp_path, source, "import torchvision; print(*declared)")
    assert (result.returncode, result.stdout.strip()) == (0, declared), result.stderr


def test_what_is_broken_otherwise_is_told_by_whoever_imports_it(tmp_path: Path) -> None:
    result = imported(tmp_path, OTHERWISE_BROKEN, "import torchvision")
    assert result.returncode == 1
    assert "RuntimeError: something else" in result.stderr


def test_the_package_mends_it_before_anything_imports_lightning() -> None:
    code = (
        "import sys; from lightning_prune import slim; "
        "first = [name for name in sys.modules if name in ('lightning_prune.torchvision_operators', 'lightning')]; "
        "print(*first)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.split() == ["lightning_prune.torchvision_operators", "lightning"], result.stderr
