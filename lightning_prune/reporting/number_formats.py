"""Numbers as they are printed: fractions in percent, counts, bytes and times, all of them short."""

import math


def percent(fraction: float, digits: int) -> str:
    """Write a fraction in percent with so many decimal places; `-` stands for NaN."""
    return f"{100 * fraction:.{digits}f} %" if math.isfinite(fraction) else "-"


def four_digits(number: float) -> str:
    """Write a number with four significant digits; `-` stands for NaN."""
    return f"{number:#.4g}".rstrip(".") if math.isfinite(number) else "-"


def change(number: float, base: float) -> str:
    """Write by how much a number differs from another, to the decimal place to which that is written.

    >>> change(12.5, 12.0), change(0.1, 0.25), change(math.nan, 1.0)
    ('+0.50', '-0.1500', '-')
    """
    if not math.isfinite(number - base):
        return "-"
    places = 3 - math.floor(math.log10(abs(base))) if base else 3
    return f"{number - base:+.{min(max(places, 0), 9)}f}"


def score_text(score: float, *, in_percent: bool) -> str:
    """Write a score as a share in percent, or with four significant digits."""
    return percent(score, 2) if in_percent else four_digits(score)


def change_text(score: float, base: float, *, in_percent: bool) -> str:
    """Write by how much a score differs from another, of shares in points."""
    points = 100 * (score - base)
    if not in_percent:
        return change(score, base)
    return f"{points:+.2f}" if math.isfinite(points) else "-"


def short_count(number: float) -> str:
    """Return a count in billions, millions or thousands; `-` stands for NaN."""
    for size, unit, start in ((1e9, "G", 1e9), (1e6, "M", 1e5), (1e3, "K", 1e3)):
        if number >= start:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}" if math.isfinite(number) else "-"


def short_bytes(number: float) -> str:
    """Return a size in GiB, MiB, KiB or bytes."""
    for power, unit, start in ((30, "GiB", 2**30), (20, "MiB", 1e5), (10, "KiB", 2**10)):
        if number >= start:
            return f"{number / 2**power:.2f} {unit}"
    return f"{number:.0f} B"


def milliseconds(number: float) -> str:
    """Return a time in milliseconds, or a dash where there is none."""
    return f"{number:.2f} ms" if math.isfinite(number) else "-"


def time_range(low: float, high: float) -> str:
    """Return two times in milliseconds without their unit, in three digits or so; "" if they are not known."""
    places = 2 if high < 10 else 1 if high < 100 else 0
    return f"{low:.{places}f}-{high:.{places}f}" if math.isfinite(low + high) else ""
