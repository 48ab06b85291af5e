"""How the plots look: colours, panels, headings. They are drawn without pyplot and its global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # drawing alone needs it, and whoever imports this package may not draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DPI = 160

# The palette of Okabe and Ito, which stays distinct under every common colour blindness.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, INK = "#8A8A8A", "#222222"


def show_six_points(axes: Axes) -> None:
    """Show at least six points of accuracy, so that noise is not blown up."""
    bottom, top = axes.get_ylim()
    missing = max(0.0, 0.06 - (top - bottom))
    axes.set_ylim(bottom - missing / 2, top + missing / 2)


def style_panel(axes: Axes, heading: str, *, in_percent: bool) -> None:
    """Write the heading of a panel, its values in percent if they are shares, and draw its grid."""
    axes.set_title(heading, loc="left", fontsize=10, color=INK, parse_math=False)
    if in_percent:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(color="#E4E4E4", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    axes.tick_params(color="#BBBBBB", labelcolor="#444444", labelsize=9)


def write_heading(figure: Figure, title: str, subtitle: str) -> None:
    """Write the heading, and the small print beside it or, where it is too long for that, below it."""
    width, height = figure.get_size_inches()
    # The average width of a character at either size, in inches.
    beside = 0.115 * len(title) + 0.07 * len(subtitle) + 0.3 < width
    heading = title if beside else f"{title}\n"
    figure.suptitle(heading, x=0.012, ha="left", fontsize=13, weight="bold", color=INK, parse_math=False)
    if subtitle:
        x, y, align = (0.988, 1 - 0.09 / height, "right") if beside else (0.012, 1 - 0.34 / height, "left")
        figure.text(x, y, subtitle, ha=align, va="top", fontsize=10, color="#444444", parse_math=False)
