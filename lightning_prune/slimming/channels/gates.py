"""Which parameters gate a value: multiplying them by some m >= 0 multiplies the value by m."""

from torch.fx import Node

from lightning_prune.graph import Arguments, Dataflow, Kind, is_kind, nodes_in


class GateFinder:
    """Finds which parameters gate a value, by the operators between them and it.

    Args:
        flow: The graph.
        parameters: The names of the parameters in it.
    """

    def __init__(self, flow: Dataflow, parameters: dict[Node, str]) -> None:
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
        arguments = self._flow.arguments[node]
        operands = _operands(arguments)
        if _is_affine(node):
            affine = [value for key, value in arguments.items() if key in ("weight", "bias") and value is not None]
            return _together([found.get(source, []) for source in affine]) if arguments["weight"] is not None else []
        if is_kind(node, Kind.JOINT):
            return _together([found.get(source, []) for source in operands])
        if is_kind(node, Kind.PRODUCT):
            operands.sort(key=lambda source: source not in self._parameters)  # a layer scale before what it scales
            return [gates for source in operands for gates in found.get(source, [])]
        return found.get(operands[0], []) if is_kind(node, Kind.HOMOGENEOUS) else []

    def _powers(self, ordered: list[Node], gates: frozenset[str]) -> dict[Node, int | None]:
        """Return with which power of m each value grows when `gates` are multiplied by m, None for no power."""
        powers: dict[Node, int | None] = {node: int(name in gates) for node, name in self._parameters.items()}
        for node in ordered:
            powers[node] = _power(node, self._flow.arguments[node], powers)
        return powers


def _operands(arguments: Arguments) -> list[Node]:
    """Return the tensors among the arguments of an operator, those in lists too."""
    return nodes_in(list(arguments.values()))


def _is_affine(node: Node) -> bool:
    """Return whether an operator is linear in its weight, and adds a bias."""
    return is_kind(node, Kind.LAYER) or is_kind(node, Kind.NORM)


def _power(node: Node, arguments: Arguments, known: dict[Node, int | None]) -> int | None:
    """Return with which power of m the result of an operator grows, knowing those of its operands."""
    powers = [known.get(source, 0) for source in _operands(arguments)]
    if not all(power == 0 for power in powers) and None not in powers:
        return _power_of_some(node, arguments, [power or 0 for power in powers], known)
    return None if None in powers else 0


def _power_of_some(node: Node, arguments: Arguments, powers: list[int], known: dict[Node, int | None]) -> int | None:
    if _is_affine(node):
        entering, weight = (known.get(arguments[key]) or 0 for key in ("input", "weight"))
        bias = arguments.get("bias")
        if (is_kind(node, Kind.NORM) and entering) or (bias is not None and known.get(bias, 0) != entering + weight):
            return None
        return entering + weight
    if is_kind(node, Kind.JOINT):
        adds_a_number = isinstance(arguments.get("other"), int | float)
        return powers[0] if len(set(powers)) == 1 and not adds_a_number else None
    if is_kind(node, Kind.PRODUCT):
        return sum(powers)
    pads_with_a_number = bool(arguments.get("value"))
    grows_alike = is_kind(node, Kind.HOMOGENEOUS) and not pads_with_a_number
    return powers[0] if grows_alike and not any(powers[1:]) else None


def _together(choices: list[list[frozenset[str]]]) -> list[frozenset[str]]:
    """Return the first choices of all in one set; nothing if there is none for one of them."""
    return [frozenset().union(*(choice[0] for choice in choices))] if choices and all(choices) else []
