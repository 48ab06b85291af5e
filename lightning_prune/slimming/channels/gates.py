"""Which parameters scale a value: multiplying them by some m >= 0 multiplies the value by m."""

from torch.fx import Node

from lightning_prune.graph import Arguments, Flow, called

LAYERS = {"linear", *(f"conv{rank}d" for rank in "123"), *(f"conv_transpose{rank}d" for rank in "123")}
"""Operators that are linear in their input and in their weight, and add a bias."""

CHANNEL_NORMS = {"batch_norm", "instance_norm"}
"""Normalizations of each channel by itself."""

NORMS = CHANNEL_NORMS | {"group_norm", "layer_norm", "rms_norm"}

HOMOGENEOUS = {
    *("relu", "leaky_relu", "prelu", "rrelu", "abs", "neg", "div"),
    *(f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for rank in "123"),
    *(f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d")),
    "upsample_trilinear3d",
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
    *("permute", "transpose", "t", "numpy_T", "mT", "movedim", "contiguous", "clone", "alias", "to", "_to_copy"),
    *("type_as", "dropout", "feature_dropout", "expand", "expand_as", "slice", "select", "narrow", "roll", "flip"),
    *("chunk", "split", "split_with_sizes", "getitem", "pad", "constant_pad_nd", "index_select"),
    *("mean", "sum", "amax", "amin"),
}
"""Operators that give m times as much for m times the input, for any m >= 0, in training mode too."""

PRODUCTS = {"mul", "matmul", "bmm"}
JOINTS = {"add", "sub", "cat", "stack", "maximum", "minimum"}


class Scaling:
    """Which parameters scale a value, by the operators between them and it.

    Args:
        flow: The graph.
        parameters: The names of the parameters in it.
    """

    def __init__(self, flow: Flow, parameters: dict[Node, str]) -> None:
        self._flow = flow
        self._parameters = parameters

    def gates(self, value: Node, region: frozenset[Node]) -> frozenset[str]:
        """Return the last parameters that scale the value of a region; none if that takes more than parameters."""
        found = {node: [frozenset({name})] for node, name in self._parameters.items()}
        ordered = sorted(region, key=self._flow.order.__getitem__)
        for node in ordered:
            found[node] = self._candidates(node, found)
        return next((gates for gates in found[value] if self._powers(ordered, gates)[value] == 1), frozenset())

    def _candidates(self, node: Node, found: dict[Node, list[frozenset[str]]]) -> list[frozenset[str]]:
        """Return the sets of parameters that may scale a node's value, knowing those of the nodes before."""
        name, arguments = called(node), self._flow.arguments[node]
        operands = operands_of(arguments)
        if name in LAYERS | NORMS:
            affine = [value for key, value in arguments.items() if key in ("weight", "bias") and value is not None]
            return _together([found.get(source, []) for source in affine]) if arguments["weight"] is not None else []
        if name in JOINTS:
            return _together([found.get(source, []) for source in operands])
        if name in PRODUCTS:
            operands.sort(key=lambda source: source not in self._parameters)  # a layer scale before what it scales
            return [gates for source in operands for gates in found.get(source, [])]
        return found.get(operands[0], []) if name in HOMOGENEOUS else []

    def _powers(self, ordered: list[Node], gates: frozenset[str]) -> dict[Node, int | None]:
        """Return with which power of m each value grows when `gates` are multiplied by m, None for no power."""
        powers: dict[Node, int | None] = {node: int(name in gates) for node, name in self._parameters.items()}
        for node in ordered:
            powers[node] = _power(called(node), self._flow.arguments[node], powers)
        return powers


def operands_of(arguments: Arguments) -> list[Node]:
    """Return the tensors among the arguments of an operator, those in lists too."""
    nested = [value if isinstance(value, list | tuple) else [value] for value in arguments.values()]
    return [value for values in nested for value in values if isinstance(value, Node)]


def _power(name: str, arguments: Arguments, known: dict[Node, int | None]) -> int | None:
    """Return with which power of m the result of an operator grows, knowing those of its operands."""
    powers = [known.get(source, 0) for source in operands_of(arguments)]
    if not all(power == 0 for power in powers) and None not in powers:
        return _power_of_some(name, arguments, [power or 0 for power in powers], known)
    return None if None in powers else 0


def _power_of_some(name: str, arguments: Arguments, powers: list[int], known: dict[Node, int | None]) -> int | None:
    if name in LAYERS | NORMS:
        entering, weight = (known.get(arguments[key]) or 0 for key in ("input", "weight"))
        bias = arguments.get("bias")
        if (name in NORMS and entering) or (bias is not None and known.get(bias, 0) != entering + weight):
            return None
        return entering + weight
    if name in JOINTS:
        adds_a_number = isinstance(arguments.get("other"), int | float)
        return powers[0] if len(set(powers)) == 1 and not adds_a_number else None
    if name in PRODUCTS:
        return sum(powers)
    pads_with_a_number = bool(arguments.get("value"))
    return powers[0] if name in HOMOGENEOUS and not any(powers[1:]) and not pads_with_a_number else None


def _together(choices: list[list[frozenset[str]]]) -> list[frozenset[str]]:
    """Return the first choices of all in one set; nothing if there is none for one of them."""
    return [frozenset().union(*(choice[0] for choice in choices))] if choices and all(choices) else []
