"""The curves in an offline file of W&B, whose package no longer ships a reader."""

import struct
from collections import defaultdict
from pathlib import Path

from wandb.proto import wandb_internal_pb2


def wandb_history(file: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the curves out of an offline file: a log in LevelDB's format, in blocks of 32 KiB, of protobuf records."""
    data, position, record = file.read_bytes(), 7, b""
    curves = defaultdict(list)
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record = (record if kind in (3, 4) else b"") + data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            message = wandb_internal_pb2.Record.FromString(record)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in message.history.item}
            for key, value in items.items():
                curves[key].append((int(items.get("trainer/global_step", -1)), float(value)))
    return curves
