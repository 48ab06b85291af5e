"""Which attributes, from which the code of modules takes sizes, change when channels go: found by trying."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor, nn

from lightning_prune.slimming.channels.coupling import Coupling
from lightning_prune.slimming.channels.removal import Removal
from lightning_prune.slimming.proof import Failure
from lightning_prune.slimming.size_attributes import SizeValue, set_size_attributes
from lightning_prune.slimming.surgery import Model, copy_without

MOST_TRIES = 10
"""How many choices of attributes a class of modules has before its channels stay."""


class AttributeSearch:
    """The attributes of modules that have to change with the channels.

    Code says `x.view(b, n, self.num_heads, -1)` or `x.view(b, n, -1, self.head_dim)`, and which of them cannot be seen
    in a graph. So nothing is changed at first. When the code of a module fails, all attributes of modules of its
    class are changed whose values are those of a size that changes; then fewer of them, until the code runs or none is
    left to try. Then the channels that it counts stay. In the end those that need not change are put back.

    Args:
        model: The model, which is not changed.
        coupling: Its channels.
    """

    def __init__(self, model: nn.Module, coupling: Coupling) -> None:
        self._coupling = coupling
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._counted: dict[str, list[Tensor]] = defaultdict(list)
        for module, counted in coupling.sized_calls:
            self._counted[module] += counted
        self._kinds = {name: type(self._modules[name]) for name in self._counted}
        self._left: dict[type[nn.Module], list[_Choice]] = {}
        self._tried: Counter[type[nn.Module]] = Counter()
        self._now: dict[type[nn.Module], _Choice] = {}

    def count(self, removed: Tensor) -> bool:
        """Return whether code may tell the number of any of the `removed` channels, `(labels,)` bool."""
        return any(bool((self._of(kind) & removed).any()) for kind in set(self._kinds.values()))

    def copy_without(self, model: Model, removal: Removal) -> Model:
        """Return a copy of a model without what goes, with the attributes that are tried now."""
        small = copy_without(model, self._coupling, removal)
        modules = dict(small.named_modules(remove_duplicate=False))
        for name, kind in self._kinds.items():
            choice = self._now.get(kind)
            if choice is not None and name in modules:
                changes = self._changes(name, removal.channels, choice.ambiguous)
                set_size_attributes(modules[name], {key: new for key, new in changes.items() if key in choice.names})
        return small

    def try_next(self, failed: Failure, removed: Tensor) -> bool:
        """Choose other attributes for the class of the module that failed, or of one around it.

        If these count no channels, the error may show behind the code that made it: then all classes have their first
        choice, and where only the outputs are others their further ones too.

        Args:
            failed: What went wrong.
            removed: The channels that go, `(labels,)` bool.

        Returns:
            Whether there was anything that was not tried.
        """
        around = self._around(failed, removed)
        kinds = around or list(dict.fromkeys(self._kinds.values()))
        for kind in kinds:
            if kind not in self._left:
                self._left[kind] = self._choices(kind, removed)
        first = [kind for kind in kinds if self._left[kind] and not self._tried[kind]]
        kinds = [kind for kind in kinds if self._left[kind] and self._tried[kind] < MOST_TRIES]
        if around or (failed.module is None and not first):
            # Each class has its first choice before any has its second.
            chosen = [min(kinds, key=lambda kind: self._tried[kind])] if kinds else []
        else:
            chosen = first
        for kind in chosen:
            self._tried[kind] += 1
            self._now[kind] = self._left[kind].pop(0)
        return bool(chosen)

    def spare(self, works: Callable[[], bool]) -> None:
        """Change no attributes but those without which it does not work."""
        for kind, choice in list(self._now.items()):
            for name in sorted(choice.names):
                before = self._now[kind]
                self._now[kind] = replace(before, names=before.names - {name})
                if not works():
                    self._now[kind] = before

    def counted(self, failed: Failure, removed: Tensor) -> tuple[str, Tensor] | None:
        """Return the class whose code has failed, and the `removed` channels that it counts.

        Returns:
            Its name and `(labels,)` bool; None if it cannot be told.
        """
        for kind in self._around(failed, removed):
            return kind.__name__, self._of(kind) & removed
        return None

    def _around(self, failed: Failure, removed: Tensor) -> list[type[nn.Module]]:
        """Return the classes of the module that failed and of those around it that count `removed` channels."""
        if failed.module is None:
            return []
        parts = failed.module.split(".") if failed.module else []
        names = [".".join(parts[:length]) for length in range(len(parts), -1, -1)]
        kinds = dict.fromkeys(self._kinds[name] for name in names if name in self._kinds)
        return [kind for kind in kinds if (self._of(kind) & removed).any()]

    def _of(self, kind: type[nn.Module]) -> Tensor:
        """Return `(labels,)` bool: the channels that modules of a class count."""
        inside = torch.zeros_like(self._coupling.channel, dtype=torch.bool)
        for name, counted in self._counted.items():
            if self._kinds[name] is kind:
                inside[self._coupling.channel[torch.cat([labels.reshape(-1) for labels in counted])]] = True
        return inside

    def _choices(self, kind: type[nn.Module], removed: Tensor) -> list["_Choice"]:
        """Return what to try of the attributes of a class, pairs last."""
        same = [name for name, other in self._kinds.items() if other is kind]
        plain, all_of_them = ([self._changes(name, removed, each) for name in same] for each in (False, True))
        choices = _subsets(plain, ambiguous=False)
        choices += _subsets(all_of_them, ambiguous=True) if all_of_them != plain else []
        return sorted(choices, key=lambda choice: len(choice.names) == 2 and choice != choices[0])

    def _changes(self, name: str, removed: Tensor, ambiguous: bool) -> dict[str, SizeValue]:
        """Return the attributes of a module whose values are sizes that change, with their new values.

        Args:
            name: The module.
            removed: The channels that go.
            ambiguous: Also those whose values are sizes of several dimensions, not all of which change alike.
        """
        found: dict[int, list[int]] = defaultdict(list)
        for labels in self._counted[name]:
            left = (~removed[self._coupling.channel[labels]]).sum(dim=-1)
            found[labels.shape[-1]].append(int(left.max()))
        sizes = {old: min(new) for old, new in found.items() if min(new) < old and (ambiguous or len(set(new)) == 1)}
        changes: dict[str, SizeValue] = {}
        for key, value in vars(self._modules[name]).items():
            if type(value) is int and value in sizes:
                changes[key] = sizes[value]
            elif type(value) in (list, tuple) and all(type(each) is int for each in value):
                new = [sizes.get(each, each) for each in value]
                if new != list(value):
                    changes[key] = type(value)(new)
        return changes


@dataclass(frozen=True)
class _Choice:
    """The attributes of a class of modules that are changed, those with ambiguous values too or not."""

    names: frozenset[str]
    ambiguous: bool


def _subsets(changes: list[dict[str, SizeValue]], ambiguous: bool) -> list[_Choice]:
    """Return choices among the attributes that change in any module: all, each of them, and each two."""
    names = sorted({key for each in changes for key in each})
    counts = [len(names), *(count for count in (1, 2) if count < len(names))] if names else []
    return [_Choice(frozenset(some), ambiguous) for count in counts for some in combinations(names, count)]
