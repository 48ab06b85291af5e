"""Every rule on every overload of its operators: it follows the channels, or refuses in the one way that is known."""

import importlib
import operator
import pkgutil
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from overload_samples import ATEN, Made, Stored, is_of_tensors, is_unusual, named, program_of, samples
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph
from torch.utils._pytree import tree_leaves

from lightning_prune.graph.dataflow import written_by
from lightning_prune.slimming.channels import operator_rules, rules
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed
from lightning_prune.slimming.channels.operator_rules import RULES, Rule, follow, gathered, rule_of
from lightning_prune.slimming.traced_model import couple

MODULES = [importlib.import_module(f"{rules.__name__}.{found.name}") for found in pkgutil.iter_modules(rules.__path__)]
NAMES = sorted({name.partition(".")[0] for name in RULES})


def overloads(name: str) -> list[OpOverload]:
    """Return the overloads of an operator that take tensors and give new ones."""
    packet = getattr(ATEN, name)
    return [overload for each in packet.overloads() if is_of_tensors(overload := getattr(packet, each))]


def followed(overload: OpOverload, values: list[Any]) -> tuple[ChannelWalk, Any, Any]:
    """Return the walk over one call of an overload, the axes of its result, and that; raise what its rule does."""
    model, program, call, output = program_of(overload, values)
    walk = ChannelWalk(model, program)
    for node in program.graph.nodes:
        if node.op == "call_function":
            walk.give(node, operator_rules._followed(walk, node))
    return walk, walk.values[call], output


def check(axes: list[Axis], output: Tensor) -> None:
    """Check that channels lie where an output has positions, and that it is zero where they are said to be."""
    assert all(isinstance(axis, Axis) for axis in axes)
    for axis in axes:
        labels, zero = axis.spread
        assert labels.shape == zero.shape
        assert zero.dtype == torch.bool
        assert -output.ndim <= min(axis.dims)
        for dim in axis.dims:
            assert labels.shape[dim] == output.shape[dim]
        assert not output[zero.expand(output.shape)].nan_to_num().any()  # of one number the deviation is NaN
    dims = [dim for axis in axes for dim in axis.dims]
    assert len(dims) == len(set(dims))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:.*deprecated")
def test_every_overload_is_followed_or_refused(name: str) -> None:
    for overload in overloads(name):
        found = samples(overload)
        assert found, f"no arguments were found that {overload} accepts: add some to SPECIAL"
        for values in found:
            try:
                _, axes, output = followed(overload, values)
            except NotFollowed:
                continue
            several = axes if isinstance(output, list | tuple) else [axes]
            outputs = output if isinstance(output, list | tuple) else [output]
            for own, tensor in zip(several, outputs, strict=True) if tree_leaves(output) != [None] else ():
                check(own, tensor)


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_is_asked_about_numbers_and_results_that_are_given(name: str) -> None:
    """Overloads of Python's numbers and lists, and those with `out=`, are refused before any rule."""
    packet = getattr(ATEN, name)
    model, program, _, _ = program_of(ATEN.relu.default, [Stored((4,))])
    walk = ChannelWalk(model, program)
    for overload in (getattr(packet, each) for each in packet.overloads()):
        schema, graph = overload._schema, Graph()
        if is_of_tensors(overload) or is_unusual(overload) or "out_dtype" in str(schema):
            continue
        values = {argument.name: graph.placeholder(argument.name) for argument in schema.arguments}
        by_name = {argument.name: values.pop(argument.name) for argument in schema.arguments if argument.kwarg_only}
        call = graph.call_function(overload, tuple(values.values()), by_name)
        for node in graph.nodes:
            node.meta["val"] = torch.zeros(2, 3)
        with pytest.raises(NotFollowed):
            operator_rules._followed(walk, call)


def test_rules_are_followed_somewhere() -> None:
    """None refuses all that it is for, so that the test above looks at results."""
    following = set()
    for name in NAMES:
        for overload in overloads(name):
            for values in samples(overload):
                try:
                    _, axes, _ = followed(overload, values)
                except NotFollowed:
                    continue
                if tree_leaves(axes):
                    following.add(RULES.get(named(overload), RULES.get(name)))
    silent = {rule.__name__ for rule in set(RULES.values()) - following}
    assert silent == {"unread"}


# The table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_each_file_has_rules_for_operators_that_there_are(module: ModuleType) -> None:
    assert module.RULES
    for name, rule in module.RULES.items():
        assert callable(rule)
        packet, _, overload = name.partition(".")
        assert overload in ("", *getattr(ATEN, packet).overloads()), name


def test_the_table_is_that_of_the_folder() -> None:
    assert sum(len(module.RULES) for module in MODULES) == len(RULES)


def test_two_files_for_one_operator_are_refused() -> None:
    def rule(walk: ChannelWalk, node: Any, arguments: Any) -> list[Axis]:
        return []

    files = [SimpleNamespace(__name__=name, RULES={"cumsum": rule}) for name in ("first", "second")]
    with pytest.raises(AssertionError, match="second has rules for cumsum, and so has another file"):
        gathered(files)  # type: ignore[arg-type]


def rule_for(overload: OpOverload) -> Rule | None:
    graph = Graph()
    return rule_of(graph.call_function(overload, (graph.placeholder("x"),)))


def test_the_rule_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "cumsum", raising=False)
    assert rule_for(ATEN.relu_.default) is rule_for(ATEN.relu.default) is rule_for(ATEN.sigmoid.default)
    assert rule_for(ATEN.max.other) is rule_for(ATEN.maximum.default)
    assert rule_for(ATEN.max.dim) is rule_for(ATEN.amax.default)
    assert rule_for(ATEN.cumsum.default) is None


# Defects and refusals -------------------------------------------------------------------------------------------------


class Computed(nn.Module):
    """Sizes and numbers that depend on what the network computes."""

    def __init__(self, forward: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self._forward = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self.first(x), self.last)


def chosen(x: Tensor) -> int:
    number = (x.sum() > 0).long().item()  # of which torch.export does not know the value
    torch._check(number >= 0)
    torch._check(number < 4)
    return number


def positions(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)[x.sum(1).flatten(1) > 0]


COMPUTED: dict[str, Callable[[Tensor, nn.Module], Tensor]] = {
    "a number": lambda x, last: last((x * x.sum().item()).mean((2, 3))),
    "a position": lambda x, last: last(x.select(2, chosen(x)).mean(2)),
    "a range": lambda x, last: last(x.narrow(2, chosen(x), 2).mean((2, 3))),
    "a repetition": lambda x, last: x.repeat(chosen(x) + 1, 1, 1, 1).sum(),
    "some positions": lambda x, last: last(positions(x)),
    "a block of some positions": lambda x, last: (y := positions(x)) + last(last(y)),
    "rows that differ": lambda x, last: last(x.mean((2, 3)).unique(dim=0)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_computed_sizes_and_numbers_meet_stays(name: str) -> None:
    fixed = couple(Computed(COMPUTED[name]), torch.zeros(1, 3, 8, 8)).fixed()
    assert ("first", 8) in [layer for layers in fixed.values() for layer in layers]


class Cumulative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).cumsum(1))


def test_what_a_rule_refuses_stays_for_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(walk: ChannelWalk, node: Any, arguments: Any) -> list[Axis]:
        raise NotFollowed("are added up one after the other")

    monkeypatch.delitem(RULES, "cumsum", raising=False)
    plain = couple(Cumulative(), torch.zeros(1, 3, 4, 4)).fixed()
    assert plain["enter aten.cumsum.default"] == [("first", 8)]
    monkeypatch.setitem(RULES, "cumsum", rule)
    refused = couple(Cumulative(), torch.zeros(1, 3, 4, 4)).fixed()
    assert refused["are added up one after the other"] == [("first", 8)]


def test_what_else_a_rule_raises_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(walk: ChannelWalk, node: Any, arguments: Any) -> list[Axis]:
        return arguments["dims"]  # type: ignore[no-any-return]

    monkeypatch.setitem(RULES, "cumsum", rule)
    with pytest.raises(KeyError, match="dims"):
        couple(Cumulative(), torch.zeros(1, 3, 4, 4))


def test_results_of_operators_that_are_no_tensors_operators_are_kept() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    call = graph.call_function(operator.add, (x, 1))
    graph.output(call)
    model, program, _, _ = program_of(ATEN.relu.default, [Stored((4,))])
    assert follow(model, program).facts.kept
    assert written_by(call) == []


# Writes in place ------------------------------------------------------------------------------------------------------


def written(write: OpOverload, view: OpOverload, *told: Any) -> tuple[Axis, Axis]:
    """Return the channels of a tensor and of a look at it, made before a write to the former."""
    model, program, call, _ = program_of(view, [Made((2, 8, 4, 4)), *told])
    graph, source = program.graph, call.args[0]
    with graph.inserting_after(call):
        change = graph.call_function(write, (source, 1.0))
        change.meta["val"] = source.meta["val"]
    walk = follow(model, program)
    (made,), (seen,) = walk.values[source], walk.values[call]
    return made, seen


@pytest.mark.parametrize(("write", "stays"), [(ATEN.mul_.Scalar, True), (ATEN.add_.Scalar, False)])
def test_a_write_is_seen_through_every_look_at_the_memory(write: OpOverload, stays: bool) -> None:
    for axis in written(write, ATEN.permute.default, [1, 0, 2, 3]):
        assert axis.zero.tolist() == [False, stays, *[False] * 6]
