"""Objects from a configuration, and which part of it is at fault if there is none."""

from typing import Literal

import pytest
from omegaconf import OmegaConf

from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.runs.building import BuildError, build

MAGNITUDE = "lightning_prune.pruning.criteria.magnitude.Magnitude"
WHOLE = {"_target_": "builtins.dict", "one": {"_target_": MAGNITUDE, "p": 1}}


def test_what_is_nested_is_built_too() -> None:
    assert build(OmegaConf.create({"a": {"b": WHOLE}}), "a.b", {"two": 2}) == {"one": Magnitude(1), "two": 2}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"_target_": MAGNITUDE, "p": -1}, "a.b"),
        ({**WHOLE, "two": {"_target_": MAGNITUDE, "p": -1}}, "a.b.two"),
        ({**WHOLE, "two": [1, {"_target_": MAGNITUDE, "p": 1}, {"_target_": MAGNITUDE, "p": -1}]}, "a.b.two[2]"),
        ({**WHOLE, "two": {"x.y": {"_target_": MAGNITUDE, "p": -1}}}, "a.b.two.x.y"),
        ({**WHOLE, "two": "${c}"}, "a.b.two"),
        ({**WHOLE, "two": {"_target_": "builtins.dict", "three": "${c}"}}, "a.b.two.three"),
    ],
)
def test_the_innermost_part_at_fault_is_named(options: dict[str, object], key: str) -> None:
    cfg = OmegaConf.create({"a": {"b": options}, "c": {"_target_": MAGNITUDE, "p": -1}})
    with pytest.raises(BuildError) as error:
        build(cfg, "a.b")
    assert error.value.key == key
    assert isinstance(error.value.cause, InputError)
    assert "-1" in str(error.value)


def test_what_cannot_be_imported_is_at_fault_as_well() -> None:
    with pytest.raises(BuildError) as error:
        build(OmegaConf.create({"a": {**WHOLE, "two": {"_target_": "lightning_prune.nowhere.Nothing"}}}), "a")
    assert error.value.key == "a.two._target_"
    assert "got lightning_prune.nowhere.Nothing: module 'lightning_prune' has no" in str(error.value)


class Layer:
    def __init__(
        self, width: int, rate: float = 0.1, mode: Literal["max", "min"] = "max", name: str | None = None
    ) -> None:
        self.width, self.rate, self.mode, self.name = width, rate, mode, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a: expected width for Layer, got none; say a.width=VALUE"),
        ({"width": "???"}, "a: expected width for Layer, got none; say a.width=VALUE"),
        (
            {"width": 3, "rte": 1},
            "a: expected arguments of Layer, width, rate, mode, name, got rte; did you mean rate?",
        ),
        ({"width": "wide"}, "a.width: expected a whole number, got wide"),
        ({"width": 1.5}, "a.width: expected a whole number, got 1.5"),
        ({"width": True}, "a.width: expected a whole number, got True"),
        ({"width": None}, "a.width: expected a whole number, got None"),
        ({"width": 3, "rate": "fast"}, "a.rate: expected a number, got fast"),
        ({"width": 3, "mode": "most"}, "a.mode: expected max or min, got most"),
        ({"width": 3, "name": 5}, "a.name: expected a text or null, got 5"),
    ],
)
def test_arguments_are_checked_before_anything_is_built(arguments: dict[str, object], message: str) -> None:
    options = {"_target_": f"{__name__}.Layer", **arguments}
    with pytest.raises(BuildError) as error:
        build(OmegaConf.create({"a": options}), "a")
    assert str(error.value) == message
    with pytest.raises(BuildError, match=r"^b\.inner[.:]"):  # and those of what it is made of
        build(OmegaConf.create({"b": {"_target_": "builtins.dict", "inner": options}}), "b")


def test_arguments_of_a_kind_that_was_told_are_let_through() -> None:
    layer = build(OmegaConf.create({"a": {"_target_": f"{__name__}.Layer", "width": 3, "rate": 1, "name": "x"}}), "a")
    assert (layer.width, layer.rate, layer.mode, layer.name) == (3, 1, "max", "x")
    partial = build(OmegaConf.create({"a": {"_target_": f"{__name__}.Layer", "_partial_": True, "rate": 2}}), "a")
    assert partial(4).width == 4
