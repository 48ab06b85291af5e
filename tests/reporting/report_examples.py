"""Models, logs and pictures that several tests of reports look at."""

from io import StringIO
from pathlib import Path

import numpy as np
from matplotlib.image import imread
from rich.console import Console, RenderableType

from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.rows import Metric, Row

ACCURACY = Metric("accuracy", "max")


def costs(
    parameters: int, nonzeros: int, macs: float, size: int, latency_ms: float, threads: int = 2, batch_size: int = 32
) -> Profile:
    """Return a profile whose quartiles lie five percent below and above the median."""
    low, high = 0.95 * latency_ms, 1.05 * latency_ms
    return Profile(parameters, nonzeros, macs, size, latency_ms, low, high, threads, batch_size)


BASELINE = Row("baseline", 0.9220, costs(272474, 272474, 40551424, 1101440, 3.2104), 10000)
MASKED = Row("masked", 0.9185, costs(272474, 160474, 40551424, 1101440, 3.2204), 10000)
SLIM = Row("slim", 0.9185, costs(111715, 111715, 19351424, 450000, 1.7104), 10000)

BLUE, VERMILLION, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)


def printed(renderable: RenderableType, width: int) -> list[str]:
    file = StringIO()
    Console(file=file, width=width).print(renderable)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def squeezed(line: str) -> str:
    return " ".join(line.split())


def write_log(run_folder: Path, version: int, text: str) -> None:
    folder = run_folder / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)


def pixels(path: Path) -> np.ndarray:
    return (imread(path)[:, :, :3] * 255).round().astype(int)


def count_pixels(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == color).all(axis=-1).sum())
