"""Kill runs of train.py at random moments, resume them, and compare every bit with a run that was never stopped.

Each round starts the same run anew, stops it by SIGKILL or SIGTERM, resumes it, and so on for `--kills` times before
it may end. Compared are, in every stage (a teacher, the run itself, fine-tuning), the last and the best checkpoint
(weights, optimizer, schedule, callbacks, random state) and the curves, and the accuracies of the summary. The exit code
is 1 if anything differs.

    python scripts/kill_and_resume.py sfp gmp gal --rounds 3
    python scripts/kill_and_resume.py none --set checkpoint_every_n_steps=3 --set trainer.max_epochs=6
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_prune.reporting import RunFolder, read_metrics, read_summary

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


# Running and stopping -------------------------------------------------------------------------------------------------


class Stop(NamedTuple):
    """Say when and how to stop a run.

    Attributes:
        rows: Rows that it logs first, counted from this start.
        seconds: Time after the last of them.
        signal: What it gets then.
    """

    rows: int
    seconds: float
    signal: signal.Signals


def start(home: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start train.py in a folder, on one thread, since several would add up sums in another order."""
    home.mkdir(exist_ok=True)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.Popen(
        command,
        cwd=home,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a run to end well.

    Raises:
        RuntimeError: If it fails, with what it printed.
    """
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"train.py ended with exit code {process.returncode}:\n{errors}")


def run_whole(home: Path, options: Sequence[str]) -> tuple[int, float]:
    """Run train.py from start to end and return how many rows it logged and the seconds from one to the next."""
    process, first = start(home, [*options, "hydra.run.dir=run"]), 0.0
    while process.poll() is None and not first:
        time.sleep(0.02)
        first = time.time() if rows(home) else 0.0
    finish(process)
    end = max(stage.last_checkpoint.stat().st_mtime for stage in stages(home))
    return rows(home), (end - first) / rows(home)


def rows(home: Path) -> int:
    """Count the rows that all stages of a run have logged, over all its starts."""
    # A folder's name changes when its teacher is ready.
    with contextlib.suppress(FileNotFoundError):
        return sum(len(file.read_text().splitlines()) - 1 for stage in stages(home) for file in stage.metrics)
    return rows(home)


def stages(home: Path) -> list[RunFolder]:
    """Return the folders of the stages of a run, as far as it has come."""
    return [RunFolder(folder.parent) for folder in home.rglob("csv")]


def run_stopped(home: Path, options: Sequence[str], stops: Sequence[Stop]) -> int:
    """Run train.py, stop it, resume it, and so on until it ends.

    Args:
        home: Folder to run it in.
        options: Of train.py.
        stops: One for each start but the last.

    Returns:
        How often the run was really stopped, and had not ended before.
    """
    arguments, stopped = [*options, "hydra.run.dir=run"], 0
    for stop in stops:
        before, process = rows(home), start(home, arguments)
        while process.poll() is None and rows(home) < before + stop.rows:
            time.sleep(0.01)
        time.sleep(stop.seconds)
        process.send_signal(stop.signal)
        _, errors = process.communicate()
        if process.returncode == 0:
            return stopped
        if process.returncode not in (-stop.signal, 128 + stop.signal):
            raise RuntimeError(f"train.py ended with exit code {process.returncode}:\n{errors}")
        arguments, stopped = ["resume=run"], stopped + 1
    finish(start(home, arguments))
    return stopped


def draw_stops(draw: random.Random, count: int, total: int, seconds: float) -> list[Stop]:
    """Draw moments for a run that logs `total` rows, one every so many seconds, and what stops it."""
    stops: list[Stop] = []
    for _ in range(count):
        left = total - sum(stop.rows for stop in stops)
        stops.append(Stop(draw.randint(1, max(1, left - 2)), draw.uniform(0, seconds), draw.choice(SIGNALS)))
    return stops


# Comparing ------------------------------------------------------------------------------------------------------------


def differences(home: Path, other: Path) -> list[str]:
    """Return the names of everything in which two finished runs differ, bit for bit; none if they are the same."""
    mine, its = contents(home), contents(other)
    return sorted(name for name in mine.keys() | its.keys() if not equal(mine.get(name), its.get(name)))


def contents(home: Path) -> dict[str, Any]:
    """Return all that a run ended with, by name."""
    checkpoints = {
        str(file.relative_to(home)): torch.load(file, map_location="cpu", weights_only=True)
        for file in home.rglob("*.ckpt")
    }
    found = {
        **checkpoints,
        **{f"curves of {stage.path.relative_to(home)}": read_metrics(stage.path) for stage in stages(home)},
        "accuracy": {row.name: row.score for row in read_summary(RunFolder(home / "run").summary).rows},
    }
    return dict(leaves(found, str(home)))


def leaves(value: Any, folder: str, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every tensor and builtin of a nested value with a name, leaving out where the run's folder is."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, folder, f"{name}/{str(key).replace(folder, '')}")
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from leaves(entry, folder, f"{name}/{index}")
    else:
        yield name, value.replace(folder, "") if isinstance(value, str) else value


def equal(value: Any, other: Any) -> bool:
    """Return whether two leaves are the same bits."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        same_kind = value.dtype == other.dtype and value.shape == other.shape
        # As bytes, for NaN differs from itself and -0.0 does not from 0.0.
        return same_kind and value.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    return repr(value) == repr(other)


def main() -> int:
    """Run all rounds and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategies", nargs="+", metavar="STRATEGY", help="as in strategy=..., none and [a,b] included")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=2, help="of one run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the signals")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another option of train.py")
    options = parser.parse_args()
    draw, failed = random.Random(options.seed), 0
    for strategy in options.strategies:
        overrides = [f"strategy={strategy}", "logger=csv", "trainer.max_epochs=6", *options.set]
        with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as place:
            total, seconds = run_whole(Path(place) / "whole", overrides)
            for index in range(options.rounds):
                home = Path(place) / f"round-{index}"
                stops = draw_stops(draw, options.kills, total, seconds)
                stopped = run_stopped(home, overrides, stops)
                found = differences(Path(place) / "whole", home)
                failed += bool(found)
                moments = [f"{s.signal.name} {s.seconds:.2f} s after row {s.rows}" for s in stops[:stopped]]
                print(f"{strategy}, round {index}: {', '.join(moments) or 'not stopped'}: ", end="")
                print(f"{len(found)} differ: {', '.join(found[:5])}" if found else "the same bits", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
