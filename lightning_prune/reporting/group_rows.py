"""What the picture of groups shows: layers below each other, and in which column each group crosses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_prune.graph import holder
from lightning_prune.slimming import PrunableGroups, Role

WRITES, OWNED, READS, STAYS = "writes the unit", "scale, shift or bias of it", "reads it", "stays, and why"
"""What a layer is to a group."""

_PARTS: dict[Role, str] = {
    **dict.fromkeys(("filter", "writer"), WRITES),
    **dict.fromkeys(("bias", "scale", "shift", "slope"), OWNED),
    "reader": READS,
}

_LONGEST = 90
"""Letters of a reason in the picture; the text view has all of it."""


@dataclass
class LayerRow:
    """One layer, with a normalization before or behind it that is there for its channels alone."""

    layers: list[str]
    parts: dict[int, dict[str, str]] = field(default_factory=dict)
    """By group, then by what the layers are to it: which share of the layer the group has, "" for all of it."""
    stays: dict[str, int] = field(default_factory=dict)
    """How many of the layer's channels are in no group, by reason."""

    @property
    def label(self) -> str:
        """The names of the layers, the part that they share once."""
        first, *others = self.layers
        parent = first.rpartition(".")[0]
        return ", ".join([first, *(name.removeprefix(f"{parent}.") for name in others)])

    @property
    def reason(self) -> str:
        """Why channels stay, in a line that is not too long."""
        texts = [f"{count} {reason}" if len(self.stays) > 1 else reason for reason, count in self.stays.items()]
        text = "; ".join(texts)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

    def joins(self, above: LayerRow) -> bool:
        """Return whether one of two rows is only there for just the channels that the other writes, or reads.

        A normalization is, of the layer before or behind it.
        """
        norm, layer, part = (self, above, WRITES) if self.only_owned else (above, self, READS)
        return norm.only_owned and not norm.stays and set(norm.parts) == layer.groups(part)

    @property
    def only_owned(self) -> bool:
        """Whether the layers only have what exists for channels."""
        return bool(self.parts) and all(set(parts) == {OWNED} for parts in self.parts.values())

    def groups(self, part: str) -> set[int]:
        """Return the groups to which the layers are this."""
        return {group for group, parts in self.parts.items() if part in parts}

    def join(self, other: LayerRow) -> None:
        """Take in the layers of another row."""
        self.layers += other.layers
        self.stays |= other.stays
        for number, parts in other.parts.items():
            self.parts[number] = self.parts.get(number, {}) | parts


def layer_rows(groups: PrunableGroups) -> list[LayerRow]:
    """Return the layers that have channels, in the order in which the model holds them."""
    found = {layer: LayerRow([layer]) for layer in map(holder, groups.shapes)}
    for number, group in enumerate(groups):
        for member in group.members:
            if member.role in _PARTS:
                parts = found[member.layer].parts.setdefault(number, {})
                parts[_PARTS[member.role]] = _share(member.index.numel(), groups.shapes[member.name][member.dim])
    for reason, layers in groups.fixed.items():
        for layer, count in layers:
            found[layer].stays[reason] = count
    rows: list[LayerRow] = []
    for row in found.values():
        if rows and row.joins(rows[-1]):
            rows[-1].join(row)
        elif row.parts or row.stays:
            rows.append(row)
    return rows


def _share(positions: int, size: int) -> str:
    return "" if positions == size else f"{positions} of {size}"


def group_spans(rows: Sequence[LayerRow]) -> dict[int, tuple[int, int]]:
    """Return the first and the last row of each group."""
    spans: dict[int, tuple[int, int]] = {}
    for height, row in enumerate(rows):
        for number in row.parts:
            spans[number] = spans.get(number, (height, height))[0], height
    return spans


def group_lanes(rows: Sequence[LayerRow], count: int) -> list[int]:
    """Return in which lane each group stands: the first one that those above it have left."""
    lanes, ends = [0] * count, list[int]()
    for number, (first, last) in sorted(group_spans(rows).items(), key=lambda item: item[1][0]):
        lane = next((lane for lane, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        lanes[number] = lane
    return lanes
