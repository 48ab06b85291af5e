"""What is typed, completed by what it means."""

from pathlib import Path

import pytest
from command_line import ROOT

from lightning_prune.options.typed_words import OPEN_GROUPS, completed, spelled

CLASSES = ["data", "lr_scheduler", "model", "module", "optimizer", "teacher.model", "teacher.optimizer"]


@pytest.mark.parametrize("key", [*CLASSES, "teacher.lr_scheduler", "finetune.lr_scheduler"])
def test_an_own_class_is_given_nothing_of_the_default_one(key: str) -> None:
    group = key.rpartition(".")[2]
    choice = group if group == key else f"{group}@{key}"
    assert completed([f"{key}._target_=mine.C", "seed=1"]) == [f"{choice}=own", f"++{key}._target_=mine.C", "seed=1"]
    assert (ROOT / "conf" / group / "own.yaml").is_file()


def test_a_choice_that_was_typed_stays() -> None:
    typed = ["model=resnet20", "model._target_=mine.Net"]
    assert completed(typed) == ["model=resnet20", "++model._target_=mine.Net"]


@pytest.mark.parametrize("group", OPEN_GROUPS)
def test_any_argument_is_let_through_where_a_class_takes_it(group: str) -> None:
    assert completed([f"{group}.x.y=1"]) == completed([f"+{group}.x.y=1"]) == [f"++{group}.x.y=1"]
    assert (ROOT / "conf" / group).is_dir()


def test_a_plus_before_a_key_that_is_there_does_no_harm() -> None:
    assert completed(["+sparsity=0.4", "++seed=1"]) == ["++sparsity=0.4", "++seed=1"]


@pytest.mark.parametrize(
    "word", ["--help", "-m", "model=resnet20", "+strategy=sfp", "~callbacks.stop", "model@teacher.model=resnet20"]
)
def test_other_words_are_left_alone(word: str) -> None:
    assert completed([word]) == [word]


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        ("/home/me/.venv/bin/lightning-prune", "lightning-prune train"),
        ("train.py", "python train.py"),
        (str(Path("/here/lightning_prune/__main__.py")), "python -m lightning_prune train"),
    ],
)
def test_the_command_is_spelled_as_it_was_typed(program: str, typed: str) -> None:
    assert spelled(program, "train") == typed
