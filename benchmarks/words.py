"""Numbers and places as reports, pictures and tables write them."""

from .schema import Cell, Fit, Report, eager_of, fits_well

__all__ = [
    "growth",
    "held",
    "installed",
    "machine_line",
    "number",
    "off",
    "percent",
    "size_of",
    "times_as_fast",
    "work",
]

# Of what shows in a line; the rest is in the report's list.
_SHOWN = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-openvino", "openvino", "torch")


def number(value: float) -> str:
    """Three digits, without an exponent where it can be had: 0.0123, 1.23, 12.3, 123, 12345."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 or not value else f"{value:#.3g}"


def percent(share: float) -> str:
    """Of a share, 1 is all: two digits, "below 0.01 %" for what is less."""
    value = abs(share) * 100
    if 0 < value < 0.01:
        return "below 0.01 %"
    return f"{value:.0f} %" if value >= 9.5 else f"{value:.2g} %"


def off(cell: Cell) -> str:
    """How a distance is not the reference's: "WRONG, 3 % off", "0.4 % off" where it need not be, "not compared" where
    the reference was not measured, else empty."""
    error = cell.get("error")
    if cell.get("wrong"):
        return "WRONG" if error is None else f"WRONG, {percent(error)} off"
    if error is None:
        return "not compared"
    return "" if cell["exact"] or not error else f"{percent(error)} off"


def times_as_fast(cell: Cell, cells: list[Cell]) -> str:
    """As `lpips` among the cells of the same size: median and quartiles of the rounds, or the medians' ratio where
    these are not known. Empty where `lpips` was not measured, or others had some of the machine."""
    if not cell.get("steady"):
        return ""
    if "times" in cell:
        times = cell["times"]
        return f"{times['p50']:.2f} ({times['q1']:.2f} to {times['q3']:.2f})"
    eager = eager_of(cell, cells)
    if eager is None or "ms" not in eager or "ms" not in cell:
        return ""
    return f"{eager['ms']['p50'] / cell['ms']['p50']:.2f}"


def growth(fit: Fit) -> str:
    """The exponent of a fit; "none fits" where no power of n says how it grows."""
    return f"{fit['exponent']:.2f}" if fits_well(fit) else "none fits"


def size_of(cell: Cell) -> tuple[str, int, int, int, int]:
    """Cells of which these are the same stand in one table: net, width, height, batch, threads."""
    return cell["net"], cell["width"], cell["height"], cell["batch"], cell["threads"]


def work(width: int, height: int, batch: int, threads: int) -> str:
    """As in "8 pairs of 256x256, 2 threads"."""
    pairs = "a pair" if batch == 1 else f"{batch} pairs"
    return f"{pairs} of {width}x{height}, {threads} thread{'s' * (threads != 1)}"


def held(cells: list[Cell]) -> str:
    """What does not vary among the cells, as in "256x256, 2 threads"."""
    shown = {
        "size": {f"{cell['width']}x{cell['height']}" for cell in cells},
        "batch": {"a pair" if cell["batch"] == 1 else f"{cell['batch']} pairs" for cell in cells},
        "threads": {f"{cell['threads']} thread{'s' * (cell['threads'] != 1)}" for cell in cells},
    }
    if any(cell.get("against", "").startswith("images") for cell in cells):
        del shown["batch"]
    return ", ".join(min(values) for values in shown.values() if len(values) == 1)


def machine_line(report: Report) -> str:
    """The processor, and the GPU of a report that has cells on one: for a title."""
    machine = report["machine"]
    gpus = [gpu["name"] for gpu in machine["gpus"][:1] if any(cell["device"] == "cuda" for cell in report["cells"])]
    names = " ".join(machine["cpu"].replace("(R)", "").replace("(TM)", "").split())
    return ", ".join([names, *gpus])


def installed(report: Report, names: tuple[str, ...] = _SHOWN) -> str:
    """As in "onnxruntime 1.32.0, torch 2.13.0"."""
    versions = report["machine"]["versions"]
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
