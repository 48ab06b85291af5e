"""What is refused, and what is warned of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradual_net import Net, Record, fitted
from torch import Tensor

from lightning_prune import GradualPruning
from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.apoz import APoZ
from lightning_prune.pruning.criteria.batch_norm_scale import BatchNormScale
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.criteria.taylor import Taylor
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.granularities.pattern import Pattern
from lightning_prune.pruning.granularities.vector import Vector


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GradualPruning(1.2), r"expected sparsity in \[0, 1\), got 1.2"),
        (lambda: GradualPruning(), "expected a sparsity in .* for granularity Element"),
        (lambda: GradualPruning(0.4, granularity=NM(2, 4)), r"expected sparsity 0.5 for NM\(n=2, m=4\)"),
        (
            lambda: GradualPruning(0.4, granularity="n_m"),
            "a Granularity such as Element.*, got 'n_m'; write: from .*n_m import NM",
        ),  # type: ignore[arg-type]
        (
            lambda: GradualPruning(0.4, criterion="l1"),
            "a Criterion such as Magnitude.*, got 'l1'; .*criteria has APoZ, ",
        ),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, schedule="cubic"), "expected schedule to be a function"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, scope="all"), "scope to be one of layer, global, erdos"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, begin=1.5), r"begin in optimizer steps .* got 1.5"),
        (lambda: GradualPruning(0.4, every=-1), "every in optimizer steps .* got -1"),
        (lambda: GradualPruning(0.4, end=True), "end in optimizer steps .* got True"),
        (lambda: GradualPruning(0.4, floor=1.0), r"floor in \[0, 1\), got 1.0"),
        (lambda: GradualPruning(0.4, gather=0), "gather to be a whole number of at least 1, got 0"),
        (
            lambda: GradualPruning(0.4, granularity=Channel(dim=2)),
            "dim, 0 for filters or 1 for input channels, .* got 2",
        ),
        (lambda: GradualPruning(0.4, skip=(1,)), "skip to name layers by patterns such as 'layer1.*', got 1"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, skip="first"), "skip to be a list of 'first'"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, rewind="lr"), "rewind to be one of weights, learning_rate, got 'lr'"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, criterion=Mix(), scope="global"), "scope='layer' for Mix"),
        (lambda: GradualPruning({"*": 0.4}, scope="erdos_renyi_kernel"), "one sparsity for scope"),
    ],
)
def test_bad_arguments_are_refused_with_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": 15, "end": 10}, "begin not after end, got begin=15 and end=10"),
        ({"end": 21}, "end within the 20 optimizer steps of this run, got 21"),
        ({"schedule": lambda p, final: final / 2}, "reaches sparsity 0.5 at its end"),
        ({"criterion": Taylor(), "begin": 0}, "begin of at least 1 optimizer step for Taylor"),
        ({"criterion": APoZ()}, r"granularity Channel\(\)"),
        ({"criterion": BatchNormScale()}, r"granularity Channel\(\)"),
        ({"criterion": BatchNormScale(), "granularity": Channel()}, "expected middle to have a scale"),
        (
            {"granularity": Vector(5)},
            "found none; skip=.* leaves out stem; middle: expected a vector length",
        ),
        ({"skip": ("fist",)}, r"skip\[fist\] to match first, last, depthwise or layers by their names, .* stem"),
        ({"granularity": NM(2, 4), "sparsity": None, "uncut": "refuse", "skip": ()}, "stem: expected input channels"),
        ({"granularity": Pattern(), "sparsity": None, "uncut": "refuse"}, "head: expected 3x3 kernels"),
        ({"sparsity": {"nowhere": 0.5}}, r"sparsity\[nowhere\] to match a prunable layer"),
        ({"scope": "global", "floor": 0.6}, r"at most 0.3996, so that every layer keeps a fraction floor=0.6"),
        ({"rewind": "weights", "rewind_to": 8}, "rewind_to not after begin=2 optimizer steps, got 8"),
        (
            {"granularity": Channel(), "scope": "erdos_renyi_kernel"},
            "scope='layer' or 'global' for channels",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(options: dict[str, Any], message: str) -> None:
    record = Record()
    options = {"sparsity": 0.5, **options}
    with pytest.raises(InputError, match=message) as caught:
        fitted(GradualPruning(example_input=torch.zeros(2, 3, 8, 8), **options), record)
    assert "\n" not in str(caught.value)
    assert not record.weights


def test_activations_that_do_not_exist_are_refused() -> None:
    class Linear(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.last(self.middle(self.norm(self.stem(x)))).mean((2, 3)))

    callback = GradualPruning(0.5, granularity=Channel(), criterion=APoZ(), example_input=torch.zeros(2, 3, 8, 8))
    with pytest.raises(InputError, match="expected an activation function behind middle"):
        fitted(callback, module=Linear())


def test_a_sparsity_that_removes_nothing_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="Sparsity 0.01 removes no unit of any layer"):
        fitted(GradualPruning(0.01, granularity=Channel(), example_input=torch.zeros(2, 3, 8, 8)))


def test_a_rate_that_is_too_low_at_the_end_is_warned_of() -> None:
    class Low(Net):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.01)}

    with pytest.warns(UserWarning, match="may not recover"):
        fitted(GradualPruning(0.5, end=0.9), module=Low())
