"""Pictures of a report: latency by subject, error against latency, and how cost grows.

Each is a PNG 900 pixels wide as a README shows it, twice as fine. It carries the SHA-256 of the report that it was made
from, by which `made_from` tells whether it still fits.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from lpips_runtime.errors import UsageError
from lpips_runtime.output import replacing, reported

from .labels import place_labels
from .schema import AGAINST, Cell, Report, fits_well, fitted, is_ours, measured
from .words import growth, held, machine_line, number, off, size_of, work

__all__ = ["NAMES", "draw", "made_from", "pictures"]

# Of Okabe and Ito, which the colour-blind tell apart, in brightness too.
_OURS, _OTHERS, _INK, _FAINT = "#0072B2", "#D55E00", "#262626", "#D9D9D9"
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"
_WIDTH, _DPI = 9.0, 200  # inches, of 100 pixels as shown
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8C8C8C",
    "axes.labelcolor": _INK,
    "axes.axisbelow": True,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
# The largest time is so many times the least: a linear axis would press the fast ones together.
_WIDE = 12
# The spread of a logarithmic axis below which so many numbers of a decade find room on it.
_SUBS = {8: (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), 300: (1.0, 2.0, 5.0), np.inf: (1.0,)}
_KEY = "SHA-256 of the report"
# The size of the pictures of `latency`, if it was measured: width, height, batch.
_MAIN = (256, 256, 1)

# What is varied -> the name of its picture; and all that pictures are called.
_CURVES = {against: against.replace(",", "").replace(" ", "-") for against in AGAINST}
NAMES = ("latency", "error", *_CURVES.values())

Drawing = Callable[[Any, Report], Any]


def pictures(report: Report) -> dict[str, tuple[str, Drawing]]:
    """What can be drawn of it: the end of the file's name -> a title in words, and what draws it."""
    found: dict[str, tuple[str, Drawing]] = {}
    if report["command"] == "latency" and _main_cells(report):
        found["latency"] = "Latency by subject", _latency
        if any(cell.get("error") is not None for cell in _main_cells(report)):
            found["error"] = "Error against latency", _error
    if report["command"] == "scaling":
        for against, name in _CURVES.items():
            if any(cell.get("against") == against and measured(cell) for cell in report["cells"]):
                found[name] = f"Time against {against}", _scaling(against)
    return found


def draw(report: Report, name: str, path: Path, sha256: str) -> None:
    """Draw one of `pictures` into a PNG file, whole or not at all. sha256: of the report's file, to be kept in it.

    Raises UsageError without matplotlib, OutputError if the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib import figure
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise UsageError("pictures need matplotlib; pip install '.[bench]'") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what the user has set for pictures of theirs
        matplotlib.rcParams.update(_STYLE)
        page = figure.Figure(dpi=_DPI, layout="constrained")
        FigureCanvasAgg(page)
        pictures(report)[name][1](page, report)
        with replacing(path) as file, reported(path):
            page.savefig(file, format="png", metadata={_KEY: sha256, "Software": None})


def made_from(path: Path) -> str | None:
    """The SHA-256 of the report that a picture was made from; None if there is no such file, or it does not say."""
    try:
        with Image.open(path) as image:
            said = image.info.get(_KEY)
    except (OSError, UnidentifiedImageError):
        return None
    return said if isinstance(said, str) else None


def _main_cells(report: Report) -> list[Any]:
    """The measured cells of the size that is drawn, of all nets, each net's fastest first."""
    there: list[Any] = [cell for cell in report["cells"] if measured(cell)]
    sizes = [size_of(cell)[1:] for cell in there]
    chosen = next((size for size in sizes if size[:3] == _MAIN), next(iter(sizes), None))
    return sorted(
        (cell for cell in there if size_of(cell)[1:] == chosen), key=lambda cell: (cell["net"], cell["ms"]["p50"])
    )


def _nets(cells: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    for net in dict.fromkeys(cell["net"] for cell in cells):
        yield net, [cell for cell in cells if cell["net"] == net]


def _colour(cell: Cell) -> str:
    return _OURS if is_ours(cell) else _OTHERS


def _title(page: Any, what: str, report: Report) -> None:
    spoiled = any(measured(cell) and not cell.get("steady") for cell in report["cells"])
    words = f"{machine_line(report)}, {report['date']}" + ", while others had some of the machine" * spoiled
    page.suptitle(f"{what}\n{words}", x=0.01, ha="left", fontsize=11)


def _ticks(axis: Any, values: list[float]) -> None:
    """Plain numbers on an axis; on a logarithmic one as many as its decades leave room for."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if axis.get_scale() == "log":
        spread = max(values) / min(values)
        subs = next(subs for most, subs in _SUBS.items() if spread < most)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(7))
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _key(page: Any, cells: list[Any]) -> None:
    """Whose colour is which."""
    from matplotlib.lines import Line2D

    def handle(label: str, colour: str, fill: str) -> Any:
        return Line2D([], [], ls="", marker="o", ms=6, color=colour, markerfacecolor=fill, label=label)

    handles = [handle("this project", _OURS, _OURS), handle("others", _OTHERS, _OTHERS)]
    if any(cell["wrong"] for cell in cells):
        handles.append(handle("wrong", _INK, "white"))
    page.legend(handles=handles, loc="outside upper right", ncols=len(handles), handletextpad=0.1)


def _fill(cell: Cell) -> str:
    return "white" if cell.get("wrong") else _colour(cell)


def _latency(page: Any, report: Report) -> None:
    """Dots with whiskers from quartile to quartile, a panel for each net, as high as it has subjects."""
    cells = _main_cells(report)
    nets = list(_nets(cells))
    page.set_size_inches(_WIDTH, 0.9 + sum(0.24 * len(group) + 0.62 for _, group in nets))
    panels = page.subplots(len(nets), 1, squeeze=False, height_ratios=[len(group) + 0.6 for _, group in nets])[:, 0]
    for axes, (net, group) in zip(panels, nets, strict=True):
        times = [cell["ms"]["p50"] for cell in group]
        logarithmic = max(times) > _WIDE * min(times)
        axes.set_xscale("log" if logarithmic else "linear")
        _ticks(axes.xaxis, times)
        last = max(cell["ms"]["q3"] for cell in group)
        for row, cell in enumerate(group):
            ms = cell["ms"]
            axes.plot([ms["q1"], ms["q3"]], [row, row], color=_colour(cell), lw=3.5, alpha=0.35, solid_capstyle="butt")
            axes.plot(ms["p50"], row, "o", ms=6, color=_colour(cell), markerfacecolor=_fill(cell))
            words = off(cell) if cell["wrong"] else ""
            axes.annotate(
                f"{number(ms['p50'])}  {words}".rstrip(),
                (max(ms["q3"], ms["p50"]), row),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                fontweight="bold" if is_ours(cell) else "normal",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
        axes.set_yticks(range(len(group)), [cell["title"] for cell in group])
        for label, cell in zip(axes.get_yticklabels(), group, strict=True):
            label.set_color(_OURS if is_ours(cell) else _INK)
        axes.set_ylim(len(group) - 0.4, -0.6)
        least = min(cell["ms"]["q1"] for cell in group)
        # Room for the figures on the right, and for what is wrong with them.
        room = 0.34 if any(cell["wrong"] for cell in group) else 0.14
        axes.set_xlim(*((least / 1.25, last * (last / least) ** room * 1.1) if logarithmic else (0, last * (1 + room))))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_title(net)
    panels[-1].set_xlabel("ms a call: median, and from quartile to quartile")
    _title(page, f"Latency: {work(*size_of(cells[0])[1:])}", report)
    _key(page, cells)


def _error(page: Any, report: Report) -> None:
    """A panel for each net. No error at all has a line of its own below the least that there is."""
    from matplotlib.ticker import FixedLocator, NullLocator

    cells = [cell for cell in _main_cells(report) if cell["error"] is not None]
    nets = list(_nets(cells))
    page.set_size_inches(_WIDTH, 0.9 + 2.8 * len(nets))
    panels = page.subplots(len(nets), 1, squeeze=False, sharey=True)[:, 0]
    powers = [int(np.floor(np.log10(cell["error"]))) for cell in cells if cell["error"]] or [-6]
    zero, high = 10.0 ** (min(powers) - 1), max(powers) + 1
    ticks = {zero: "0", **{10.0**power: f"$10^{{{power}}}$" for power in range(min(powers), high + 1)}}
    for axes, (net, group) in zip(panels, nets, strict=True):
        times = [cell["ms"]["p50"] for cell in group]
        room = (max(times) / min(times)) ** 0.08 * 1.05
        axes.set(xscale="log", xlim=(min(times) / room, max(times) * room))
        _ticks(axes.xaxis, times)
        axes.set(yscale="log", ylim=(zero / 3, 2 * 10.0**high), title=net, ylabel="relative error")
        axes.yaxis.set_major_locator(FixedLocator(list(ticks)))
        axes.yaxis.set_major_formatter(lambda value, _: ticks[min(ticks, key=lambda tick: abs(np.log(tick / value)))])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axhspan(zero / 3, zero * 3, color="#F2F2F2", lw=0)
        axes.grid()
        for cell in group:
            axes.plot(
                cell["ms"]["p50"],
                cell["error"] or zero,
                "o",
                ms=6,
                color=_colour(cell),
                markerfacecolor=_fill(cell),
            )
    unknown = ", ".join(f"{cell['subject']} ({cell['net']})" for cell in _main_cells(report) if cell["error"] is None)
    panels[-1].set_xlabel("ms a call, median" + (f"\nnot drawn, error unknown: {unknown}" if unknown else ""))
    _title(page, f"Error against latency: {work(*size_of(cells[0])[1:])}", report)
    _key(page, cells)
    for axes, (_, group) in zip(panels, nets, strict=True):
        points = [(cell["ms"]["p50"], cell["error"] or zero) for cell in group]
        place_labels(axes, points, [cell["subject"] for cell in group], [_colour(cell) for cell in group])


def _scaling(against: str) -> Drawing:
    def drawing(page: Any, report: Report) -> None:
        cells: list[Any] = [cell for cell in report["cells"] if cell.get("against") == against and measured(cell)]
        nets = list(_nets(cells))
        subjects = list(dict.fromkeys(cell["subject"] for cell in cells))
        page.set_size_inches(_WIDTH, 3.6 + 0.17 * len(subjects))
        panels = page.subplots(1, len(nets), squeeze=False)[0]
        for axes, (net, group) in zip(panels, nets, strict=True):
            for place, subject in enumerate(subjects):
                own = sorted((cell for cell in group if cell["subject"] == subject), key=lambda cell: cell["at"])
                if own:
                    _curve(axes, report, own, place)
            at = sorted({cell["at"] for cell in group})
            axes.set(xscale="log", yscale="log")
            _ticks(axes.yaxis, [cell["ms"]["p50"] for cell in group])
            # What was measured; pixels by the side of as large a square.
            axes.set_xticks(at, [f"{n**0.5:.0f}²" if against == "pixels" else f"{n:g}" for n in at], minor=False)
            axes.set_xticks([], minor=True)
            axes.grid()
            axes.set_title(net)
            axes.set_xlabel(AGAINST[against])  # type: ignore[index]
            axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.17), handlelength=1.6, borderpad=0)
        panels[0].set_ylabel("ms a call, median")
        _title(page, f"Time against {against}: {held(cells)}", report)

    return drawing


def _curve(axes: Any, report: Report, cells: list[Any], place: int) -> None:
    """The points of a subject, and the line that was fitted, with its exponent in the legend."""
    colour, marker = _LINES[place % len(_LINES)], _MARKERS[place % len(_MARKERS)]
    net, subject, against = (cells[0][key] for key in ("net", "subject", "against"))
    fits = [
        fit for fit in report.get("fits", []) if (fit["net"], fit["subject"], fit["against"]) == (net, subject, against)
    ]
    label = f"{subject}, $n^{{{growth(fits[0])}}}$" if any(map(fits_well, fits)) else subject
    at = [cell["at"] for cell in cells]
    for fit in filter(fits_well, fits):
        line = np.geomspace(min(at), max(at), 60)
        axes.plot(line, fitted(fit, line), color=colour, lw=1.2, alpha=0.8)
    for cell in cells:
        fill = "white" if cell["wrong"] else colour
        axes.plot(cell["at"], cell["ms"]["p50"], marker, ms=5, color=colour, markerfacecolor=fill)
    axes.plot([], [], marker=marker, ms=5, lw=1.2 * any(map(fits_well, fits)), color=colour, label=label)
