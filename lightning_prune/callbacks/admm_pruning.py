"""Pruning by ADMM, with any granularity, and with patterns and connectivity (PCONV, PatDNN)."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_prune.arguments import flag, number, whole_number
from lightning_prune.callbacks.timed_pruner import TimedPruner
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import (
    Goal,
    Granularity,
    Scope,
    Skip,
    SparseSet,
    Sparsity,
    Split,
    Uncut,
    check_sparsity,
    in_all,
    residual,
)
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.pattern import Pattern, mined
from lightning_prune.slimming import TracedModel
from lightning_prune.training import Moment, check_agreement


class ADMMPruning(TimedPruner):
    """Draw the weights towards sparse ones while they train, then prune, and hold what went at zero.

    Until `end` the weights stay dense. The loss gains `rho / 2 * ||W - Z + U||^2`, where Z is the sparse point next to
    W + U and U adds up what W still lacks; both change at the end of every round, and `rho` grows from round to round.
    After `end` the model trains on with what was pruned at zero. With `begin` equal to `end` it is pruned at once.

    `admm/residual`, `||W - Z|| / ||W||`, and `admm/rho` are logged at the end of every epoch until then. The first
    may rise while U fills, and falls as `rho` grows; what is left of it at `end` is what pruning takes away at once.

    The defaults were chosen among nine settings on the digits of train.py (20 epochs of SGD, three seeds) by the test
    accuracy at 95 % sparsity, and were not tried on anything larger. A constant `rho` is the papers'.

    Args:
        sparsity: Fraction of the units that go, in [0, 1), or such fractions by layer name pattern (`{"layer1.*": 0.3,
            "*": 0.9}`; the first that matches counts, unmatched layers keep all). None for what the granularity fixes
            by itself, as `Pattern()` and `NM()` do.
        granularity: How weights are cut into units, by default `Element()`. Of channels all goes that exists for them.
        connectivity: Fraction of the kernels of every layer but the first that go as a whole, in [0, 1); None for none.
            They have a Z and a U of their own; what `granularity` leaves of a kernel decides in the end.
        per_filter: Take the same number of kernels from every filter, so that all have the same work.
        mine: Replace the patterns of `Pattern()` by this many, those most frequent in the weights at `begin` (PatDNN).
        rho: Factor of the penalty in the first round, greater than 0.
        rho_max: Factor in the last round, at least `rho`; between, it grows by the same factor every round. SGD with
            momentum is stable while the learning rate times it, twice that with `connectivity`, is below about 1.
        begin: When the first round starts, in optimizer steps, or as a fraction of the run if it is a float.
        end: When the last one ends, and the masks are final. In steps or as a fraction, as `begin`.
        every: How long a round is, in steps or as a fraction, at least a step.
        scope: Where units compete; see `lightning_prune.pruning.quota.Scope`. Kernels compete within their layer.
        floor: Fraction of its units that every layer keeps in global scope, in [0, 1), at least one.
        skip: Layers left as they are; see `lightning_prune.pruning.finding.Skip`.
        uncut: Treatment of layers that the granularity cannot cut: `"skip"`, logged with the reason, or `"refuse"`.
        example_input: What `forward` takes, a tensor or a tuple; by default the module's `example_input_array`, or else
            the first training batch. Only channels need it.

    Raises:
        InputError: If an argument is out of range, or does not fit another; when training starts, also if it does not
            fit the model or the length of the run, or the module optimizes manually.

    Reference:
        Zhang et al., A Systematic DNN Weight Pruning Framework using Alternating Direction Method of Multipliers, 2018,
        arXiv:1804.03294; Ma et al., PCONV, 2020, arXiv:1909.05073; Niu et al., PatDNN, 2020, arXiv:2001.00138.
    """

    def __init__(
        self,
        sparsity: Sparsity | None = None,
        *,
        granularity: Granularity | None = None,
        connectivity: float | None = None,
        per_filter: bool = True,
        mine: int | None = None,
        rho: float = 1e-2,
        rho_max: float = 1.0,
        begin: Moment = 0.1,
        end: Moment = 0.5,
        every: Moment = 0.025,
        scope: Scope = "layer",
        floor: float = 0.01,
        skip: Collection[Skip] = ("first", "depthwise"),
        uncut: Uncut = "skip",
        example_input: ExampleInput | None = None,
    ) -> None:
        granularity = Element() if granularity is None else granularity
        self.goal = Goal(granularity, sparsity, scope, floor, skip, uncut)
        self.connectivity = None if connectivity is None else check_sparsity(connectivity, "connectivity")
        self.per_filter = flag("per_filter", per_filter)
        self.mine = mine
        if mine is not None:
            whole_number("mine, the patterns to take of the 56 with a centre,", mine, most=56)
            if granularity != Pattern():
                raise InputError(f"expected granularity Pattern() for mine={mine}, got {granularity!r}; leave one out")
        self.rho = float(number("rho", rho, "(0, inf)"))
        self.rho_max = float(number("rho_max", rho_max, "(0, inf)"))
        if rho_max < rho:
            raise InputError(f"expected rho_max of at least rho={rho}, got {rho_max}")
        super().__init__(granularity, example_input, begin, end, every)

    def _forget(self) -> None:
        super()._forget()
        self._sets: list[SparseSet] = []
        self._splits: list[Split] = []
        self._rho = 0.0
        self._mined: Pattern | None = None

    @property
    def kind(self) -> str:
        """What tells this callback from others of its class: what it prunes."""
        return self._generate_state_key(granularity=self.granularity, connectivity=self.connectivity)

    # The run ----------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work, find what can be pruned, and put a checkpoint's copies beside the weights."""
        super().on_fit_start(trainer, pl_module)
        self._splits = [Split(_beside(split.near, pl_module), _beside(split.dual, pl_module)) for split in self._splits]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how far the weights are from sparse ones."""
        if self._draws:
            pl_module.log_dict({"admm/residual": residual(self._splits, _weights(pl_module)), "admm/rho": self._rho})

    def state_dict(self) -> dict[str, Any]:
        """Return the masks in force, or the copies and duals of the round that is running."""
        splits = [{"near": _on_cpu(split.near), "dual": _on_cpu(split.dual)} for split in self._splits]
        patterns = self._mined and [list(pattern) for pattern in self._mined.patterns]
        return {**super().state_dict(), "splits": splits, "rho": self._rho, "mined": patterns}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._rho = state_dict["rho"]
        self._splits = [Split(split["near"], split["dual"]) for split in state_dict["splits"]]
        self._mined = Pattern(tuple(map(tuple, state_dict["mined"]))) if state_dict["mined"] else None

    def report(self, module: nn.Module) -> dict[str, Any]:
        """Return the sparsity of the layers that are pruned, of their kernels, and how many have which pattern."""
        tensors = dict(module.named_parameters())
        prunables = [prunable for sparse in self._sets for prunable in sparse.competition.prunables]
        names = dict.fromkeys(name for prunable in prunables for name in prunable.filters)
        weights = [tensors[name].detach() for name in names]
        found: dict[str, Any] = {"weight_sparsity": _share_of_zeros(weights), **super().report(module)}
        if kernels := [Kernel().units(weight).any(dim=1) for weight in weights if weight.ndim > 2]:
            found["kernel_sparsity"] = _share_of_zeros(kernels)
        if isinstance(pattern := self._mined or self.granularity, Pattern):
            counts = pattern.histogram(weights)
            kinds = ["-".join(map(str, positions)) for positions in pattern.patterns]
            found["patterns"] = {**dict(zip(kinds, counts.kernels, strict=True)), "removed": counts.removed}
            found["patterns"]["others"] = counts.others
        return found

    # The parts --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super()._plan(trainer, pl_module)
        self._enter_loss(pl_module, lambda loss: self._penalize(pl_module))

    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        found = self.goal.find(pl_module, traced)
        if found is None:
            return False
        self._sets = [SparseSet(found)]
        if self._mined is not None:
            self._take(self._mined)
        if self.connectivity is not None:
            kernels = Goal(Kernel(self.per_filter), self.connectivity, skip=("first", *self.goal.skip))
            links = kernels.find(pl_module)
            self._sets += [] if links is None else [SparseSet(links)]
        return True

    @property
    def _draws(self) -> bool:
        return any(split.near for split in self._splits)

    def _penalize(self, pl_module: LightningModule) -> Tensor | None:
        if not self._draws:
            return None
        weights = dict(pl_module.named_parameters())
        return self._rho * torch.stack([split.pull(weights) for split in self._splits if split.near]).sum()

    @torch.no_grad()
    def _make_choice(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        weights = _weights(pl_module)
        if self.mine is not None and self._mined is None and (prunables := self._sets[0].competition.prunables):
            self._take(mined([weights[name] for one in prunables for name in one.filters], self.mine))
        if self.is_final:
            self._splits = []
            self._hold(trainer, pl_module, in_all(self._sets, weights))
            return
        rho, former = self._rho_after(step), self._rho
        if self._splits:
            pairs = zip(self._splits, self._sets, strict=True)
            self._splits = [split.update(sparse, weights).rescaled(rho / former) for split, sparse in pairs]
        else:
            self._splits = [Split.start(sparse, weights) for sparse in self._sets]
        self._rho = rho
        for split in self._splits:
            check_agreement(trainer, {name: copy != 0 for name, copy in split.near.items()})

    def _take(self, pattern: Pattern) -> None:
        """Prune to other patterns."""
        self._mined = pattern
        self._sets[0] = self._sets[0].cut(pattern)

    def _rho_after(self, step: int) -> float:
        """Return the factor of the round that starts after `step`."""
        assert self._timeline is not None
        rounds = self._timeline.choices(self._timeline.end) - 1
        share = (self._timeline.choices(step) - 1) / max(1, rounds - 1)
        return float(self.rho * (self.rho_max / self.rho) ** share)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters without their graph, in float32 where they are stored in less."""
    parameters = dict(module.named_parameters())
    return {name: p.detach().to(torch.promote_types(p.dtype, torch.float32)) for name, p in parameters.items()}


def _beside(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.to(module.get_parameter(name).device) for name, tensor in tensors.items()}


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _share_of_zeros(tensors: list[Tensor]) -> float:
    return sum(int((tensor == 0).sum()) for tensor in tensors) / max(1, sum(tensor.numel() for tensor in tensors))
