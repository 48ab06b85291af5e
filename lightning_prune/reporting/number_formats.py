"""Numbers as they are printed: fractions in percent, counts, bytes and times, all of them short."""

import math


def percent(fraction: float, digits: int) -> str:
    """Write a fraction in percent with so many decimal places; `-` stands for NaN."""
    return f"{100 * fraction:.{digits}f} %" if math.isfinite(fraction) else "-"


def short_count(number: float) -> str:
    """Return a count in billions, millions or thousands."""
    for size, unit, start in ((1e9, "G", 1e9), (1e6, "M", 1e5), (1e3, "K", 1e3)):
        if number >= start:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def short_bytes(number: float) -> str:
    """Return a size in GiB, MiB, KiB or bytes."""
    for power, unit, start in ((30, "GiB", 2**30), (20, "MiB", 1e5), (10, "KiB", 2**10)):
        if number >= start:
            return f"{number / 2**power:.2f} {unit}"
    return f"{number:.0f} B"


def milliseconds(number: float) -> str:
    """Return a time in milliseconds, or a dash where there is none."""
    return f"{number:.2f} ms" if math.isfinite(number) else "-"
