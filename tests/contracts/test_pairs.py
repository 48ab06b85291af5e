"""Methods in conf/ work in pairs, in one run of one model."""

import pytest
import torch
from configured import composed, options, pieces, trainer

from lightning_prune import slim
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.graph.interception import suspended

PAIRS = [
    (one, other) for one in ("gmp", "sfp", "kd") for other in options("strategy") if other not in (one, "none", "gal")
]
"""GAL refuses all others, by name; see tests/callbacks/test_gal_pruning.py."""


@pytest.mark.filterwarnings("ignore:The last units go at learning rate")
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_methods_work_in_pairs(one: str, other: str) -> None:
    module, data, callbacks = pieces(composed(f"strategy=[{one},{other}]"))
    trainer(*callbacks).fit(module, datamodule=data)
    pruners = [callback for callback in callbacks if isinstance(callback, Pruner)]
    parameters = dict(module.named_parameters())
    for pruner in pruners:
        assert pruner.is_final
        for name, mask in (pruner.masks or {}).items():
            assert not (parameters[name] * ~mask).any()
    images = data.example_input(16)
    with torch.no_grad(), suspended():
        masked, slimmed = module.eval()(images), slim(module, images).eval()(images)
    torch.testing.assert_close(slimmed, masked, rtol=0, atol=1e-4 * float(masked.abs().max()))
