"""Objects from a configuration, and which part of it is at fault if there is none."""

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
    assert error.value.key == "a.two"
    assert isinstance(error.value.cause, ImportError)
