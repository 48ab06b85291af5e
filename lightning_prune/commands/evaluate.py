"""Measure the networks that a run ended with once more, and print their table.

    lightning-prune evaluate outputs/2026-11-22/10-00-00
    lightning-prune evaluate outputs/2026-11-22/10-00-00 threads=1 latency_batch_size=1
    lightning-prune evaluate outputs/2026-11-22/10-00-00 write=true    # and put the figures in place of the run's own

Nothing is trained. The table that the run has printed is in its summary.json, and stays unless you say write=true.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_prune.commands.key_values import help_of, read_key_values
from lightning_prune.commands.one_line_parser import OneLineParser
from lightning_prune.reporting import RunFolder, read_summary, write_summary
from lightning_prune.runs import ending_in_one_line, measured_again, print_report


class Options(NamedTuple):
    """What can be said at the command line, as key=value."""

    threads: int = 0
    latency_batch_size: int = 0
    write: bool = False


HELP = {
    "threads": "of the CPU; by default as the run had them",
    "latency_batch_size": "samples in the batch whose latency is measured; by default as in the run",
    "write": "whether the figures take the place of those in summary.json",
}


def main(words: Sequence[str]) -> None:
    """Measure one run; what a person got wrong ends it with one line.

    Args:
        words: What was typed.
    """
    parser = OneLineParser(
        prog="lightning-prune evaluate",
        description=__doc__,
        epilog=f"options:\n{help_of(Options(), HELP)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("options", nargs="*", metavar="key=value", help="see below")
    with ending_in_one_line():
        typed = parser.parse_args(words)
        options = read_key_values(Options(), typed.options)
        rows, metric = measured_again(
            typed.run, samples=options.latency_batch_size or None, threads=options.threads or None
        )
        folder = RunFolder(typed.run)
        print_report(folder, rows, metric, {})
        if options.write:
            extra = read_summary(folder.summary).extra if folder.summary.is_file() else {}
            write_summary(folder.summary, rows, metric, extra)
