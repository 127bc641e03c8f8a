"""lpips-export: arguments in, exit code out.

torch and the rest of the exporter are imported only once the arguments are known to be good.
"""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lpips_runtime import __version__
from lpips_runtime.errors import LpipsError
from lpips_runtime.models import find_model

from .console import ConsoleProgress
from .errors import ARRANGED, NO_CALIBRATION, SpecError, StructureError, ValidationError
from .guard import abandon_stdout, guard
from .profiles import EngineSpec, engine_spec
from .progress import Advance

__all__ = ["main"]

# What the options may be; spec.CHOICES must say the same (tests/exporter/test_cli.py).
Net = Literal["alex", "vgg", "squeeze"]
Precision = Literal["fp32", "fp16", "int8", "auto"]
Target = Literal["cpu", "tensorrt", "openvino"]
Version = Literal["0.1", "0.0"]
Input = Literal["float32", "uint8"]

_EPILOG = (
    "Exit codes: 0 fine; 1 the proof failed; 2 the call was wrong; 3 the work failed. "
    "Results go to stdout, everything else to stderr."
)

# What only INT8 takes, but for --target openvino.
_OF_INT8 = {"calibration", "calibration_count", "target", "max_error"}

# What can be said beside --check: the artifact itself says the rest.
_BESIDE_CHECK = {"check", "backbone", "lin", "allow_unknown_weights", "as_json", "debug"}

# What goes from the command line into engine_spec, under the same names.
_OF_AN_ENGINE = (
    *("min_shapes", "opt_shapes", "max_shapes"),
    *("workspace", "timing_cache", "version_compatible", "hardware_compatible"),
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lpips-export {__version__}")
        raise typer.Exit


@app.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def run(
    context: typer.Context,
    net: Annotated[Net, typer.Option(help="Backbone.")] = "alex",
    precision: Annotated[
        Precision,
        typer.Option(
            help="Precision of the graph: float32, half, INT8, or whichever proves to be the fastest on this machine."
        ),
    ] = "fp32",
    lpips_version: Annotated[Version, typer.Option(help="LPIPS version; 0.0 is that of the first preprint.")] = "0.1",
    lin: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|none",
            help="Your own weighting of the channels (.pth or .safetensors with lin0.model.1.weight, ...), "
            "or 'none' for the unweighted baseline.  [default: that of the lpips package]",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Backbone weights, torchvision's .pth or .safetensors.  [default: looked for in "
            "$LPIPS_WEIGHTS_DIR, torch's hub cache, torchvision's download, the package index]",
        ),
    ] = None,
    allow_unknown_weights: Annotated[
        bool,
        typer.Option("--allow-unknown-weights", help="Take backbone weights that are not torchvision's."),
    ] = False,
    input: Annotated[  # noqa: A002  the option's name
        Input, typer.Option(help="What the graph takes: float32 NCHW in [-1,1], or uint8 NHWC 0..255.")
    ] = "float32",
    split: Annotated[
        bool,
        typer.Option("--split", help="Also write the features and compare graphs, to encode once, compare often."),
    ] = False,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Photographs to calibrate INT8 on and to judge it by, 8 at least."),
    ] = None,
    calibration_count: Annotated[
        int, typer.Option(metavar="N", help="How many of the photographs to use at most.")
    ] = 64,
    target: Annotated[
        Target | None,
        typer.Option(
            help="What the graph is for. cpu, tensorrt: flavours of INT8. openvino: a float32 graph arranged for that "
            "provider.  [default: cpu; tensorrt with --engine]"
        ),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest mean relative error X of INT8 on held-out pairs, whose ranks must correlate by 1 - X/80 at "
            "least.  [default: 0.025 for cpu, 0.05 for tensorrt]",
        ),
    ] = None,
    engine: Annotated[
        bool,
        typer.Option(
            "--engine",
            help="Also build a TensorRT engine from the pair graph, with TensorRT or TensorRT-RTX, whichever is "
            "installed. The graphs of --split stay .onnx.",
        ),
    ] = False,
    min_shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--min",
            metavar="NxHxW",
            help="Smallest shape the engine takes: pairs x height x width. Several --min, --opt, --max make as many "
            "profiles.  [default: one pair of the net's smallest side]",
        ),
    ] = None,
    opt_shapes: Annotated[
        list[str] | None,
        typer.Option("--opt", metavar="NxHxW", help="Shape it is fastest at.  [default: 1x256x256]"),
    ] = None,
    max_shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--max",
            metavar="NxHxW",
            help="Largest shape it takes; device memory is reserved for it.  [default: 4x1024x1024]",
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most device memory the engine may work in, as in 1400MB or 2GB."),
    ] = None,
    timing_cache: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where TensorRT keeps what it measured, for a faster next build."),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let later versions of TensorRT read the engine.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Let every GPU from Ampere on run the engine.")
    ] = False,
    output_dir: Annotated[str, typer.Option(metavar="DIR", help="Where the artifact goes.")] = "artifacts",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an artifact of another specification.")
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Prove an existing artifact again instead: manifest, structure, numbers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and the log of TensorRT.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Export LPIPS as one ONNX graph, proven equal to the PyTorch reference."""
    progress = _StageProgress(debug)
    folder = Path(output_dir)
    before = _files(folder)

    def work() -> None:
        for option in _given(context):
            # As a path it would be the current folder.
            if context.params[option.name] == "":
                raise SpecError(f"{option.opts[0]} '' is an empty name; name what is meant or leave the option out")
        if check is not None:
            _refuse_beside_check(context)
        _refuse_beside_precision(context)
        wanted = _engine_spec(context)
        start = time.perf_counter()
        with progress.stage("loading PyTorch"):
            from .auto import export_auto
            from .export import check as prove
            from .export import export
            from .reporting import report_check, report_export
            from .spec import ExportSpec

        if check is not None:
            proof = prove(Path(check), backbone=_path(backbone), lin=_path(lin), progress=progress)
            report_check(proof, as_json)
            return
        spec = ExportSpec(
            net=net,
            precision="fp32" if precision == "auto" else precision,
            version=lpips_version,
            lin="none" if lin == "none" else _path(lin),
            backbone=_path(backbone),
            allow_unknown_weights=allow_unknown_weights,
            input=input,
            split=split,
            calibration=_path(calibration),
            calibration_count=calibration_count,
            target=target or ("tensorrt" if engine else "cpu"),
            max_error=max_error,
        )
        if precision == "auto":
            artifacts, trials = export_auto(
                spec,
                folder,
                shapes=wanted or EngineSpec(),
                engine=engine,
                overwrite=overwrite,
                progress=progress,
            )
        else:
            artifacts, trials = export(spec, folder, engine=wanted, overwrite=overwrite, progress=progress), []
        report_export(artifacts, time.perf_counter() - start, as_json, trials)

    def worded(error: LpipsError) -> str:
        message = str(error)
        if not isinstance(error, StructureError | ValidationError):
            return message
        if check is not None:
            path = str(find_model(Path(check)))
            return message if path in message else f"{path}: {message}"
        where = f"{progress.title}: " if progress.title else ""
        return f"{where}{message}; nothing was published"

    def interrupted() -> str:
        unchanged = check is None and before is not None and _files(folder) == before
        return "interrupted; nothing was published" if unchanged else "interrupted"

    guard(work, debug, worded, interrupted)


def _given(context: typer.Context) -> list[Any]:
    """The options that were written on the command line."""
    sources = [(option, context.get_parameter_source(option.name or "")) for option in context.command.params]
    return [option for option, source in sources if source is not None and source.name == "COMMANDLINE"]


def _engine_spec(context: typer.Context) -> EngineSpec | None:
    given = {option.name: option.opts[0] for option in _given(context) if option.name in _OF_AN_ENGINE}
    timed = context.params["precision"] == "auto" and set(given) <= {"opt_shapes"}
    if context.params["engine"] or timed:
        return engine_spec(**{name: context.params[name] for name in _OF_AN_ENGINE})
    for option in given.values():
        raise SpecError(f"{option} without --engine: it says how to build one; add --engine or leave it out")
    return None


def _refuse_beside_precision(context: typer.Context) -> None:
    precision, calibrated = context.params["precision"], context.params["calibration"] is not None
    if precision == "int8" and not calibrated:
        raise SpecError(NO_CALIBRATION)
    given = {option.name: option.opts[0] for option in _given(context)}
    if context.params["target"] == "openvino":
        if precision != "fp32":
            raise SpecError(ARRANGED)
        if context.params["engine"]:
            raise SpecError("--engine with --target openvino: engines are built by TensorRT; leave one of them out")
        given.pop("target")
    for option in (option for name, option in given.items() if name in _OF_INT8):
        if precision not in ("int8", "auto"):
            raise SpecError(f"{option} with --precision {precision}: it is for int8 and auto; leave it out")
        if not calibrated:
            raise SpecError(
                f"{option} without --calibration: it is for INT8, which is not tried then; "
                "give a folder of photographs with --calibration or leave it out"
            )


def _refuse_beside_check(context: typer.Context) -> None:
    for option in _given(context):
        if option.name not in _BESIDE_CHECK:
            raise SpecError(f"{option.opts[0]} with --check: the artifact itself says what it is; leave the option out")
    if context.params["lin"] == "none":
        raise SpecError("--lin none with --check: the artifact itself says whether it is the baseline; leave it out")


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


class _StageProgress(ConsoleProgress):
    """Remembers the stage that is open or has failed: its title names the graph that an error is about."""

    title = ""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        self.title = title
        with super().stage(title, total) as advance:
            yield advance
        self.title = ""


def _files(folder: Path) -> set[tuple[str, int, int]] | None:
    """What lies in a folder, None if that cannot be told; a file that is replaced is another of the same name."""
    try:
        # Staging folders are hidden, and are nothing that was published.
        stats = [(path.name, path.lstat()) for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return set()
    except OSError:
        return None
    return {(name, stat.st_ino, stat.st_mtime_ns) for name, stat in stats}


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of the command; `arguments` default to those of the process."""
    try:
        return app(arguments, prog_name="lpips-export")
    except OSError as error:  # --version and --help print before anything else is guarded
        abandon_stdout()
        with contextlib.suppress(OSError):  # stderr may be no better
            typer.echo(f"error: stdout cannot be written: {error.strerror}", err=True)
        raise SystemExit(LpipsError.exit_code) from error
