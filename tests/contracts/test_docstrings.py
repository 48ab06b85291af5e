"""Public functions that take or return tensors say of which shape."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lightning_prune"

SHAPE = re.compile(
    r"`\(\s*\)`"  # `()`, a number
    r"|`\([^`()]*,[^`()]*\)`"  # `(n, classes)`, `(labels,)`, `(..., 2)`
    r"|\b(of|in) (any|every|its|their|whatever|one|the same) shapes?\b|\bsame shapes? as\b|\bshaped like\b"
)
"""What counts as stating a shape."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Yield the public functions of a module, and the public methods of its public classes, by name."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, Function) and (not method.name.startswith("_") or method.name == "__call__"):
                    yield f"{node.name}.{method.name}", method


def handles_tensors(function: Function) -> bool:
    """Return whether an argument or the result is annotated as a tensor, or as something that holds tensors."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [argument.annotation for argument in arguments] + [function.returns]
    parts = [part for annotation in annotations if annotation is not None for part in ast.walk(annotation)]
    return any(isinstance(part, ast.Name) and part.id == "Tensor" for part in parts)


def unstated(text: str) -> list[str]:
    """Return the functions of a source text that handle tensors and state no shape."""
    found = functions(ast.parse(text))
    return [name for name, function in found if handles_tensors(function) and not states_shape(function)]


def states_shape(function: Function) -> bool:
    return bool(SHAPE.search(" ".join((ast.get_docstring(function) or "").split())))


def test_shapes_are_stated() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    missing = [f"{path.relative_to(PACKAGE)}: {name}" for path in files for name in unstated(path.read_text())]
    assert files
    assert not missing, f"state a shape as `(n, classes)`, or of any shape, in the docstrings of {missing}"


@pytest.mark.parametrize(
    ("docstring", "stated"),
    [
        ("Return logits `(n, classes)`.", True),
        ("Return counts `(labels,)`.", True),
        ("Return a number `()`.", True),
        ("Round a tensor of any shape.", True),
        ("Return a mask of the same shape as the weight.", True),
        ("Return logits.", False),
        ("Return logits, see `logits()` and `(this)`.", False),
        ("Return logits (n, classes).", False),
    ],
)
def test_what_counts_as_stated(docstring: str, stated: bool) -> None:
    text = f'def one(x: dict[str, Tensor]) -> int:\n    """{docstring}"""\n'
    assert unstated(text) == ([] if stated else ["one"])


def test_private_functions_and_those_without_tensors_need_none() -> None:
    assert unstated("def _one(x: Tensor) -> Tensor: ...\ndef two(x: int) -> str: ...") == []
    assert unstated("class One:\n    def __call__(self, x: Tensor) -> int: ...") == ["One.__call__"]
