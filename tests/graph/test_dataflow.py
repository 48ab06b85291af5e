"""Which value an argument stands for, and which tensors a write in place changes, by graphs written by hand."""

import operator

import torch
from torch.fx import Graph, Node

from lightning_prune.graph.dataflow import Dataflow, called, nodes_in, written_by

ATEN = torch.ops.aten


def test_a_tensor_stands_for_what_was_written_last() -> None:
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    before = graph.call_function(ATEN.relu.default, (x,))
    write = graph.call_function(ATEN.add_.Tensor, (x, y))
    again = graph.call_function(ATEN.mul_.Tensor, (x, y))
    after = graph.call_function(ATEN.cat.default, ([x, y],))
    graph.output((before, after))
    flow = Dataflow(graph)
    assert flow.arguments[before]["self"] is x
    assert flow.arguments[again]["self"] is write
    assert flow.arguments[after]["tensors"] == [again, y]
    assert flow.inputs[after] == [again, y]
    assert flow.users[x] == {before, write}


def test_a_write_changes_all_that_lie_in_its_memory() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    view = graph.call_function(ATEN.view.default, (x, [-1]))
    copy = graph.call_function(ATEN.clone.default, (x,))
    parts = graph.call_function(ATEN.chunk.default, (view, 2))
    first = graph.call_function(operator.getitem, (parts, 0))
    write = graph.call_function(ATEN.relu_.default, (first,))
    later = graph.call_function(ATEN.permute.default, (x, [0]))
    graph.output((later, copy))
    flow = Dataflow(graph)
    assert flow.overwritten == {write: [x, view, parts, first]}
    assert flow.arguments[later]["self"] is write
    assert flow.inputs[copy] == [x]


def test_what_is_told_as_out_is_written_to_and_not_the_first_argument() -> None:
    graph = Graph()
    x, out = graph.placeholder("x"), graph.placeholder("out")
    write = graph.call_function(ATEN.mul.out, (x, x), {"out": out})
    after = graph.call_function(ATEN.add.Tensor, (x, out))
    graph.output(after)
    flow = Dataflow(graph)
    assert written_by(write) == [out]
    assert flow.overwritten == {write: [out]}
    assert (flow.arguments[after]["self"], flow.arguments[after]["other"]) == (x, write)


def test_an_operator_may_write_to_two_tensors() -> None:
    graph = Graph()
    x, values, places = (graph.placeholder(name) for name in ("x", "values", "places"))
    write = graph.call_function(ATEN.max.dim_max, (x, 0), {"max": values, "max_values": places})
    after = graph.call_function(ATEN.add.Tensor, (values, places))
    graph.output(after)
    flow = Dataflow(graph)
    assert written_by(write) == [values, places]
    assert flow.inputs[after] == [write]


def test_dead_code_is_left_out() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    dead = graph.call_function(ATEN.relu.default, (x,))
    alive = graph.call_function(ATEN.neg.default, (x,))
    graph.output(alive)
    flow = Dataflow(graph)
    assert dead not in flow.order
    assert flow.users[x] == {alive}


def test_regions_end_where_others_read() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    shared = graph.call_function(ATEN.relu.default, (x,))
    inner = graph.call_function(ATEN.neg.default, (shared,))
    last = graph.call_function(ATEN.abs.default, (inner,))
    both = graph.call_function(ATEN.add.Tensor, (last, shared))
    graph.output(both)
    flow = Dataflow(graph)
    region = flow.region(last, both)
    assert region == {inner, last}
    assert flow.entries(region, last) == {shared}
    assert flow.region(shared, both) == frozenset()
    assert flow.entries(frozenset(), shared) == {shared}


def test_pythons_operators_are_not_those_of_the_same_name() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    assert called(graph.call_function(operator.add, (x, 1))) == ""
    assert called(graph.call_function(operator.getitem, (x, 0))) == "getitem"
    assert called(graph.call_function(ATEN.add_.Tensor, (x, x))) == "add"


def test_nodes_in_nested_arguments() -> None:
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    found: list[Node] = nodes_in([x, (1, [y, None]), "z"])
    assert found == [x, y]
