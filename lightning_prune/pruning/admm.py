"""ADMM: weights that are drawn towards copies of themselves, each in a set of sparse weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.prunable import join
from lightning_prune.pruning.prunable_weight import PrunableWeight


@dataclass(frozen=True, eq=False)
class SparseSet:
    """All weights that have zeros in a given fraction of their units.

    Args:
        competition: What competes, and how much of it is zero.
    """

    competition: Competition

    def support(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks by parameter name, True = kept, that take `weights` to the nearest point of the set.

        Weights are of any shape, and masks broadcast over them.

        It keeps the units with the largest L2 norms, over all that is zero without them, which for every granularity is
        the Euclidean projection; only `Channel(dim=1)` has units that share weights, and there it is close to it.
        """
        prunables = self.competition.prunables
        norms: list[Tensor] = [torch.linalg.vector_norm(one.owned(weights), dim=1) for one in prunables]
        return self.competition.choose_lowest(norms)

    def cut(self, granularity: Granularity) -> "SparseSet":
        """Return the same set for weights that are cut otherwise; channels stay what they are."""
        prunables = [
            replace(one, granularity=granularity) if isinstance(one, PrunableWeight) else one
            for one in self.competition.prunables
        ]
        return SparseSet(replace(self.competition, prunables=prunables))

    def project(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the nearest point of the set, of those `weights`, of any shapes, that it restricts, by name."""
        return {name: weights[name] * mask for name, mask in self.support(weights).items()}


def in_all(sets: Sequence[SparseSet], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks by parameter name into all sets at once: each is projected on what the one before has left.

    Weights are of any shape, and masks broadcast over them.
    """
    masks: dict[str, Tensor] = {}
    for sparse in sets:
        join(masks, sparse.support({name: tensor * masks.get(name, 1) for name, tensor in weights.items()}))
    return masks


@dataclass(frozen=True, eq=False)
class Split:
    """A copy Z of weights W in a sparse set, and the scaled dual U, the sum of W - Z over the rounds so far.

    Args:
        near: Z, by parameter name.
        dual: U, by parameter name.

    Reference:
        Zhang et al., A Systematic DNN Weight Pruning Framework using Alternating Direction Method of Multipliers, 2018,
        arXiv:1804.03294.
    """

    near: Mapping[str, Tensor]
    dual: Mapping[str, Tensor]

    @classmethod
    def start(cls, sparse: SparseSet, weights: Mapping[str, Tensor]) -> "Split":
        """Return the projection of the weights, which are of any shape, and no dual."""
        near = sparse.project(weights)
        return cls(near, {name: torch.zeros_like(copy) for name, copy in near.items()})

    def update(self, sparse: SparseSet, weights: Mapping[str, Tensor]) -> "Split":
        """Return Z, the projection of W + U, and U + W - Z, given W, `weights` of any shape by name."""
        lifted = {name: weights[name] + dual for name, dual in self.dual.items()}
        near = sparse.project(lifted)
        return Split(near, {name: lifted[name] - copy for name, copy in near.items()})

    def rescaled(self, growth: float) -> "Split":
        """Return the same multipliers for a rho that is `growth` times as large."""
        return Split(self.near, {name: dual / growth for name, dual in self.dual.items()})

    def pull(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return `()`, half the squared distance of `weights` W from Z - U, whose gradient is W - Z + U."""
        squares = [
            (weights[name].to(copy.dtype) - (copy - self.dual[name])).square().sum() for name, copy in self.near.items()
        ]
        return torch.stack(squares).sum() / 2


def residual(splits: Sequence[Split], weights: Mapping[str, Tensor]) -> Tensor:
    """Return `()`, how far `weights` W are from their copies: the norm of W - Z of all splits over that of W."""
    apart = [(weights[name] - copy).square().sum() for split in splits for name, copy in split.near.items()]
    whole = [weights[name].square().sum() for split in splits for name in split.near]
    return (torch.stack(apart).sum() / torch.stack(whole).sum()).sqrt()
