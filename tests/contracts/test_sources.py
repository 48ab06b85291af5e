"""Every file of data, models and learning rate schedulers in conf/ fits what it names, with the defaults of that."""

import inspect
from typing import Any

import pytest
from configured import content, options
from hydra.utils import get_object
from omegaconf import OmegaConf

GROUPS = [(group, name) for group in ("data", "model", "lr_scheduler") for name in options(group)]


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_every_key_is_an_argument(group: str, name: str) -> None:
    read = content(group, name)
    node: Any = read.data if "data" in read else read
    keys = [key for key in node if not key.startswith("_")]
    signature = inspect.signature(get_object(node["_target_"]))
    signature.bind_partial(**dict.fromkeys(keys))
    named = {key for key, parameter in signature.parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    assert {*keys} <= named


@pytest.mark.parametrize("name", ["image_folder", "huggingface"])
def test_files_show_the_defaults_of_the_function(name: str) -> None:
    node = content("data", name)
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    assert [key for key in node if not key.startswith("_")] == list(parameters)
    for key, parameter in parameters.items():
        if key not in ("path", "seed"):
            plain = OmegaConf.to_container(node)[key]  # type: ignore[call-overload, index]
            assert (tuple(plain) if isinstance(plain, list) else plain) == parameter.default, key
