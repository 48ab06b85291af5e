"""What is measured and shown: costs, tables, pictures."""

from lightning_prune.reporting.curve_plot import plot_curves
from lightning_prune.reporting.end_table import EndTable
from lightning_prune.reporting.group_plot import draw_groups
from lightning_prune.reporting.layer_counts import layer_counts, write_layers
from lightning_prune.reporting.layer_table import LayerTable
from lightning_prune.reporting.mac_counting import macs
from lightning_prune.reporting.metrics import read_metrics
from lightning_prune.reporting.profiling import latencies_ms, profile, profile_all
from lightning_prune.reporting.rows import BASELINE, EXPORTED, Metric, Row
from lightning_prune.reporting.run_folder import RunFolder, SweepFolder
from lightning_prune.reporting.summary import Json, in_words, read_summary, write_summary
from lightning_prune.reporting.sweeps import sweep_report

__all__ = [
    "BASELINE",
    "EXPORTED",
    "EndTable",
    "Json",
    "LayerTable",
    "Metric",
    "Row",
    "RunFolder",
    "SweepFolder",
    "draw_groups",
    "in_words",
    "latencies_ms",
    "layer_counts",
    "macs",
    "plot_curves",
    "profile",
    "profile_all",
    "read_metrics",
    "read_summary",
    "sweep_report",
    "write_layers",
    "write_summary",
]
