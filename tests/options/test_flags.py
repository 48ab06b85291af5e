"""Hydra's own options among what is typed."""

import re
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from lightning_prune.errors import InputError
from lightning_prune.options.flags import FLAGS, overrides_among


def test_the_options_are_those_of_hydra() -> None:
    actions = [action for action in get_args_parser()._actions if action.option_strings]
    assert set(FLAGS) == {flag for action in actions for flag in action.option_strings}
    for action in actions:
        for flag in action.option_strings:
            expected = tuple(action.choices) if action.choices else None if action.nargs is None else ()
            assert FLAGS[flag] == expected, flag


def test_values_of_options_are_no_overrides(tmp_path: Path) -> None:
    words = [
        "-m",
        "--cfg",
        "job",
        "seed=1",
        "-p",
        "model",
        "--info",
        "sparsity=0.3",
        "-cd",
        str(tmp_path),
        "-i",
        "config",
    ]
    assert overrides_among([*words, "-i", "config"]) == ["seed=1", "sparsity=0.3"]
    assert overrides_among(["--config-name=train", "--cfg=job", "seed=1"]) == ["seed=1"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--strategy sfp", "expected strategy=sfp, got --strategy sfp"),
        ("--strategy=sfp", "expected strategy=sfp, without dashes, got --strategy=sfp"),
        ("--multrun", "expected an option that is there, got --multrun; did you mean --multirun?"),
        ("--strategy", "expected strategy=VALUE, or an option that --help lists, got --strategy"),
        ("--cfg jobs", "expected --cfg with one of job, hydra, all, got --cfg jobs"),
        ("--cfg", "expected --cfg job|hydra|all, got --cfg alone"),
        ("--package", "expected --package VALUE, got --package alone"),
        ("--config-dir no/where", "expected a folder behind --config-dir, got no/where, which is none"),
    ],
)
def test_mistakes(typed: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        overrides_among(typed.split())
