"""Calls of any overload of an operator, with arguments guessed by its schema, and graphs that make them."""

import functools
import itertools
import operator
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export.graph_signature import InputKind
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_map

ATEN = torch.ops.aten


@dataclass(frozen=True)
class Stored:
    """A parameter of some shape, of which the second of the positions along each dimension are zero."""

    shape: tuple[int, ...]

    def tensor(self) -> Tensor:
        tensor = torch.rand(self.shape) + 0.1
        for dim, size in enumerate(self.shape):
            if size > 2:
                tensor.select(dim, 1).zero_()
        return tensor


@dataclass(frozen=True)
class Made:
    """What a convolution or a linear layer makes, whose second channel is zero."""

    shape: tuple[int, ...]

    def weight(self) -> Tensor:
        weight = torch.rand(self.channels, 3, *(1,) * max(0, len(self.shape) - 2))
        weight[1] = 0
        return weight

    @property
    def channels(self) -> int:
        return self.shape[1]

    def given(self) -> Tensor:
        return torch.rand(self.shape[0], 3, *self.shape[2:])


@dataclass(frozen=True)
class Viewed:
    """What a convolution makes of an image, in another shape: channels lie along several dimensions, or share one."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Fixed:
    """A buffer of numbers that are positions, or of bools; of a single one with no dimension."""

    values: tuple[int, ...] | int
    kind: torch.dtype = torch.int64

    def tensor(self) -> Tensor:
        return torch.tensor(self.values, dtype=self.kind)


Source = Stored | Made | Viewed | Fixed

STORED = [(8,), (4,), (4, 8), (8, 4), (8, 8), (2, 8, 4), (4, 4, 4), (2, 8, 4, 4), (8, 1, 3, 3), (2, 8, 2, 2, 2), ()]
TENSORS: list[Source] = [
    *(Stored(shape) for shape in (*STORED, (0,), (2, 0, 4), (1, 8, 1))),
    *(Made(shape) for shape in ((2, 8, 4, 4), (2, 8, 4, 4), (2, 8, 4), (2, 12))),
    *(Viewed(shape) for shape in ((2, 4, 2, 16), (2, 2, 4, 4, 4), (4, 2, 32), (2, 128), (2, 16, 2, 4), (256,))),
]
POSITIONS: list[Source] = [Fixed((0, 1)), Fixed((1, 0, 2, 3, 1, 0, 0, 2)), Fixed((0, 0, 1, 1) * 2, torch.bool)]
LISTS: list[list[int]] = [
    *([0], [1], [-1], [2], [4], [0, 1], [1, 0], [1, 1], [2, 2], [4, 4], [-1, -2], [4, 2], [8, 8], [-1, 4], [2, -1]),
    *([2, 2, 2], [1, 0, 2], [2, 4, 4], [2, 8, -1], [0, 2, 3, 1], [2, -1, 4, 4], [1, 1, 0, 0], [0, 0, 0, 0, 1, 1], []),
]
BY_NAME: dict[str, list[Any]] = {
    **{key: [*POSITIONS, *TENSORS] for key in ("condition", "repeats", "tensor_indices_or_sections")},
    "indices": [*([each] for each in POSITIONS), [None, POSITIONS[0]], [POSITIONS[0], None, POSITIONS[0]]],
    "tensors": [*([source] * 2 for source in TENSORS), [Made((2, 8, 4, 4)), Stored((2, 8, 4, 4))], [Stored((0,))] * 2],
    **{key: [1, 2, 4] for key in ("groups", "num_groups", "upscale_factor", "downscale_factor", "chunks", "sections")},
    **{key: [each for each in LISTS if 0 not in each] for key in ("kernel_size", "stride", "dilation")},
    "dtype": [torch.float64],
    "memory_format": [torch.contiguous_format],
    "layout": [torch.strided],
    "device": [torch.device("cpu")],
    **{key: [None] for key in ("pin_memory", "generator", "output_size")},
    "assert_msg": ["text"],
    "scale_factors": [[2.0], [2.0, 2.0], [2.0, 2.0, 2.0]],
}
BY_TYPE: dict[str, list[Any]] = {
    **{key: [0, 1, -1, 2, -2, 4] for key in ("int", "SymInt")},
    "bool": [False, True],
    "float": [0.5, 0.0],
    "number": [2, 0, 0.5],
    "str": ["constant", "reflect", "valid"],
    "Tensor": TENSORS,
    **dict.fromkeys(("List[int]", "List[SymInt]"), LISTS),
}
"""What to try for arguments of any other name."""

IMAGE, LINE, CUBE = Made((2, 8, 4, 4)), Made((2, 8, 4)), Stored((2, 8, 4, 4, 4))
SIZED = ([8], [8, 8], [8, 8, 8])
RESIZED = ("linear1d", "bilinear2d", "trilinear3d")
AFFINE = [Stored((8,)), Stored((8,)), None, None, True, 0.1, 1e-5, False]
SPECIAL: dict[str, list[list[Any]]] = {
    "conv1d": [[LINE, Stored((4, 8, 3)), Stored((4,)), [1], [1]], [LINE, Stored((8, 1, 3)), None, [1], [0], [1], 8]],
    "conv1d.padding": [[LINE, Stored((4, 8, 3)), None, [1], "valid"]],
    "conv2d": [
        [IMAGE, Stored((4, 8, 3, 3)), Stored((4,)), [2, 2], [1, 1]],
        [IMAGE, Stored((8, 2, 1, 1)), None, [1, 1], [0, 0], [1, 1], 4],
        [IMAGE, Stored((8, 4, 1, 1)), None, [1, 1], [0, 0], [1, 1], 2],
        [Stored((8, 4, 4)), Stored((4, 8, 3, 3))],
        [Stored((0, 8, 4, 4)), Stored((4, 8, 3, 3))],
    ],
    "conv2d.padding": [[IMAGE, Stored((4, 8, 3, 3)), None, [1, 1], "same"]],
    "conv3d": [[CUBE, Stored((4, 8, 1, 1, 1))]],
    "conv3d.padding": [[CUBE, Stored((4, 8, 1, 1, 1)), None, [1, 1, 1], "valid"]],
    "conv_transpose1d": [[LINE, Stored((8, 4, 3)), Stored((4,))]],
    "conv_transpose2d.input": [
        [IMAGE, Stored((8, 4, 3, 3)), Stored((4,)), [2, 2]],
        [IMAGE, Stored((8, 4, 3, 3)), None, [2, 2], [0, 0], [0, 0], 4],
    ],
    "conv_transpose3d.input": [[CUBE, Stored((8, 4, 1, 1, 1))]],
    "linear": [
        [Made((2, 12)), Stored((4, 12)), Stored((4,))],
        [LINE, Stored((3, 4))],
        [Stored((8,)), Stored((8,)), Stored(())],
        [Stored((2, 8)), Stored((0, 8))],
    ],
    "batch_norm": [[IMAGE, *AFFINE], [IMAGE, None, None, *AFFINE[2:]], [Stored((2, 8)), *AFFINE]],
    "instance_norm": [[IMAGE, *AFFINE], [IMAGE, None, None, *AFFINE[2:]]],
    "group_norm": [[IMAGE, 4, Stored((8,)), Stored((8,))], [IMAGE, 1, None, None], [IMAGE, 2]],
    "layer_norm": [[LINE, [4], Stored((4,)), Stored((4,))], [LINE, [8, 4]], [Made((2, 12)), [12], Stored((12,))]],
    "rms_norm": [[LINE, [4], Stored((4,))], [Made((2, 12)), [12]]],
    "prelu": [[IMAGE, Stored((8,))], [IMAGE, Stored((1,))]],
    "embedding": [[Stored((8, 4)), Fixed((0, 7, 1))]],
    "max_pool1d": [[LINE, [2]], [Stored((8, 4)), [2], [1], [1], [1], True]],
    "max_pool3d": [[CUBE, [2, 2, 2]]],
    "avg_pool1d": [[LINE, [2]]],
    "avg_pool3d": [[CUBE, [2, 2, 2], [2, 2, 2], [1, 1, 1], True]],
    **{
        f"adaptive_{kind}_pool{rank}d": [[source, [2] * rank]]
        for kind in ("avg", "max")
        for rank, source in enumerate((LINE, IMAGE, CUBE), 1)
    },
    **{
        f"upsample_nearest{rank}d": [[source, size]]
        for rank, (source, size) in enumerate(zip((LINE, IMAGE, CUBE), SIZED, strict=True), 1)
    },
    **{
        f"upsample_{kind}": [[source, size, True]]
        for kind, source, size in zip(
            ("linear1d", "bilinear2d", "trilinear3d"), (LINE, IMAGE, CUBE), SIZED, strict=True
        )
    },
    "upsample_bicubic2d": [[IMAGE, [8, 8], False]],
    "einsum": [
        ["bchw,oc->bohw", [IMAGE, Stored((5, 8))]],
        ["bchw->bc", [IMAGE]],
        ["bchw,bchw->b", [IMAGE, IMAGE]],
        ["...c->...", [Made((2, 12))]],
        ["ii->i", [Stored((4, 4))]],
    ],
    "scaled_dot_product_attention": [[Stored((2, 4, 5, 3))] * 3, [Stored((2, 4, 5, 3)), *[Stored((2, 1, 5, 3))] * 2]],
    "addmm": [
        [Stored((4,)), Stored((8, 8)), Stored((8, 4))],
        [Stored((4,)), Made((2, 12)), Stored((12, 4))],
        [Stored((4,)), Made((2, 12)), Stored((12, 4)), 2, 1],
    ],
    "bmm": [[LINE, Stored((2, 4, 8))], [LINE, Viewed((2, 4, 32))]],
    "mm": [[Made((2, 12)), Stored((12, 4))], [Stored((4, 8)), Stored((8, 4))]],
    "matmul": [[Made((2, 12)), Stored((12, 4))], [IMAGE, Viewed((2, 8, 4, 4))], [Viewed((2, 4, 2, 16)), Stored((16,))]],
    "im2col": [[IMAGE, [3, 3], [1, 1], [1, 1], [1, 1]]],
    "col2im": [
        [LINE, [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]],
    ],
    "embedding_renorm": [],
    "index.Tensor": [
        [IMAGE, [None, POSITIONS[1]]],
        [IMAGE, [POSITIONS[0]]],
        [IMAGE, [POSITIONS[0], None, POSITIONS[0]]],
    ],
    "norm.ScalarOpt_dim": [[IMAGE, None, [1]], [IMAGE, 0, [1]], [IMAGE, 2, [1], True]],
    "narrow": [[IMAGE, 1, 2, 0], [IMAGE, 1, 2, 4]],
    "slice.Tensor": [[IMAGE, 1, 4, 4], [IMAGE, 1, 0, 8, 2], [IMAGE, -3, 4]],
    "repeat": [[IMAGE, [0, 1, 1, 1]], [IMAGE, [1, 2, 1, 1]]],
    "split.sizes": [[IMAGE, [2, 6], 1]],
    "tensor_split.indices": [[IMAGE, [2, 6], 1], [IMAGE, [4, 2], 1]],
    "tensor_split.tensor_indices_or_sections": [[IMAGE, Fixed((4, 2)), 1]],
    "narrow.Tensor": [[IMAGE, 1, Fixed(2), 4]],
    "index_select": [[IMAGE, 1, POSITIONS[0]], [IMAGE, -1, POSITIONS[0]]],
    "where": [[Fixed((0, 1), torch.bool)]],
    "where.self": [
        [Fixed((0, 1, 1, 0), torch.bool), IMAGE, IMAGE],
        [Fixed((0, 1), torch.bool), Stored((8, 1)), Stored(())],
    ],
    "_assert_async.msg": [[Stored(()), "text"]],
}
"""Calls that the search does not find, or that are worth more than those that it finds, by operator and overload."""


def is_of_tensors(overload: OpOverload) -> bool:
    """Return whether an overload takes tensors and gives new ones, and can be called here by Python code."""
    schema = overload._schema
    takes = any("Tensor" in str(argument.type) for argument in schema.arguments)
    gives = all("Tensor" in str(value.type) for value in schema.returns)
    writes = any(argument.is_out for argument in schema.arguments)
    return takes and gives and not writes and not is_unusual(overload) and "out_dtype" not in str(schema)


def is_unusual(overload: OpOverload) -> bool:
    """Return whether an overload takes any number of arguments or names of dimensions, or is one of TorchScript's."""
    return overload._overloadname.startswith("prim_") or any(
        word in str(overload._schema) for word in ("...", "Dimname")
    )


def named(overload: OpOverload) -> str:
    """Return the name of an overload, that of the operator alone for the default one."""
    return str(overload).removeprefix("aten.").removesuffix(".default")


def choices(argument: Any) -> list[Any]:
    """Return what to try for an argument."""
    kind = str(argument.type)
    inner = kind.removeprefix("Optional[")[:-1] if kind.startswith("Optional[") else kind
    given = [argument.default_value] if argument.has_default_value() else [None] if inner != kind else []
    return [*given, *BY_NAME.get(argument.name, BY_TYPE.get(inner, []))] or [None]


@functools.cache
def samples(overload: OpOverload, limit: int = 6, tries: int = 600) -> list[list[Any]]:
    """Return arguments that an overload accepts, those that were written down and some that are found."""
    found = [values for values in SPECIAL.get(named(overload), []) if accepts(overload, values)]
    assert len(found) == len(SPECIAL.get(named(overload), [])), f"{overload} refuses what SPECIAL has for it"
    options = [choices(argument) for argument in overload._schema.arguments]
    chance = random.Random(str(overload))
    for values in itertools.islice(_drawn(options, chance), tries):
        if len(found) >= limit:
            break
        if accepts(overload, values):
            found.append(values)
    return found


def _drawn(options: list[list[Any]], chance: random.Random) -> Iterator[list[Any]]:
    while True:
        yield [chance.choice(some) for some in options]


def accepts(overload: OpOverload, values: list[Any]) -> bool:
    """Return whether an overload runs with arguments, and gives a tensor of ordinary size."""

    def tensor(value: Any) -> Any:
        if isinstance(value, Made | Viewed):
            return torch.rand(value.shape)
        return value.tensor() if isinstance(value, Stored | Fixed) else value

    tensors = tree_map(tensor, values)
    positional, keywords = split(overload, tensors)
    try:
        output = overload(*positional, **keywords)
    except Exception:  # any refusal of torch's
        return False
    return sum(each.numel() for each in tree_leaves(output) if isinstance(each, Tensor)) < 10_000


def split(overload: OpOverload, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional arguments and those by name."""
    arguments = overload._schema.arguments
    positional = tuple(v for v, argument in zip(values, arguments, strict=False) if not argument.kwarg_only)
    return positional, {a.name: v for v, a in zip(values, arguments, strict=False) if a.kwarg_only}


def program_of(overload: OpOverload, values: list[Any]) -> tuple[nn.Module, Any, Node, Any]:
    """Return a model and a graph with one call of an overload, the call, and what it gives when it runs."""
    model, graph, specs, given = nn.Module(), Graph(), [], []

    def placeholder(tensor: Tensor, kind: InputKind) -> Node:
        node = graph.placeholder(f"t{len(given)}")
        if kind is InputKind.PARAMETER:
            model.register_parameter(node.name, nn.Parameter(tensor))
        elif kind is InputKind.BUFFER:
            model.register_buffer(node.name, tensor)
        given.append(tensor)
        specs.append(SimpleNamespace(arg=SimpleNamespace(name=node.name), kind=kind, target=node.name))
        return node

    def sources(value: Any) -> Any:
        if isinstance(value, Fixed):
            return placeholder(value.tensor(), InputKind.BUFFER)
        if isinstance(value, Stored):
            return placeholder(value.tensor(), InputKind.PARAMETER)
        if isinstance(value, Viewed):
            image = sources(Made((2, 8, 4, 4)))
            return lambda: graph.call_function(ATEN.reshape.default, (image(), list(value.shape)))
        if isinstance(value, Made):
            layer = {2: ATEN.linear.default, 3: ATEN.conv1d.default, 4: ATEN.conv2d.default}[len(value.shape)]
            inputs = placeholder(value.given(), InputKind.USER_INPUT), placeholder(value.weight(), InputKind.PARAMETER)
            return lambda: graph.call_function(layer, inputs)
        return [sources(each) for each in value] if isinstance(value, list) else value

    prepared = [sources(value) for value in values]
    nodes = tree_map(lambda each: each() if callable(each) and not isinstance(each, Node) else each, prepared)
    call = graph.call_function(overload, *split(overload, nodes))
    graph.output(call)
    recorder = _Recorder(GraphModule(nn.Module(), graph))
    with torch.no_grad():
        output = recorder.run(*[tensor.clone() for tensor in given])
    if isinstance(output, list | tuple):
        _take_apart(graph, call, output)
    for node in graph.nodes:
        node.meta.setdefault("val", recorder.values.get(node.name))
    return model, SimpleNamespace(graph=graph, graph_signature=SimpleNamespace(input_specs=specs)), call, output


def _take_apart(graph: Graph, call: Node, outputs: Any) -> None:
    """Let the numbers among several outputs be those of the graph, each behind its own node, as exported graphs do."""
    (end,) = call.users
    parts = []
    with graph.inserting_before(end):
        for place, output in enumerate(outputs):
            part = graph.call_function(operator.getitem, (call, place))
            part.meta["val"] = output
            parts += [part] if output.is_floating_point() else []
    end.args = (tuple(parts),)


class _Recorder(Interpreter):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]
