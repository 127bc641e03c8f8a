"""What lpips-export says of its results: a path or JSON on stdout, figures on stderr."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from lpips_runtime.models import manifest_path
from lpips_runtime.plan import PlanInfo

from .agreement import SMALL, Agreement
from .auto import Trial
from .export import Proof
from .guard import say
from .manifest import Artifact

__all__ = ["report_check", "report_export"]


def report_export(artifacts: list[Artifact], seconds: float, as_json: bool, trials: Sequence[Trial] = ()) -> None:
    """Where the graphs are and, if the last of them is one, the engine; of --precision auto, what was tried."""
    graphs = [artifact for artifact in artifacts if "validation" in artifact.manifest]
    engines = [artifact for artifact in artifacts if "flavour" in artifact.manifest]
    paths = [str(artifact.path) for artifact in (graphs[0], *engines)]
    published = f"the artifact is published all the same: {' '.join(paths)}"
    if as_json:
        files = [
            {key: artifact.manifest[key] for key in ("file", "sha256", "size", "weights", "seconds")}
            | {"path": str(artifact.path), "worst": artifact.manifest["validation"]["worst"]}
            | {key: artifact.manifest[key] for key in ("quantisation",) if key in artifact.manifest}
            for artifact in graphs
        ]
        built = [
            {key: artifact.manifest[key] for key in _OF_AN_ENGINE} | {"path": str(artifact.path)}
            for artifact in engines
        ]
        result = {"path": paths[0], "seconds": round(seconds, 1), "files": files} | (
            {"engine": built[0]} if built else {}
        )
        if trials:
            result["trials"] = [trial.as_dict() for trial in trials]
        say(json.dumps(result, indent=2), published)
        return
    for line in _table(trials):
        typer.echo(line, err=True)
    for artifact in graphs:
        validation = artifact.manifest["validation"]
        typer.echo(
            f"{artifact.path.name}: {artifact.size / 1e6:.2f} MB, {len(validation['cases'])} cases against "
            f"{validation['against']}, worst error {_worst(validation['worst'])}",
            err=True,
        )
        for line in _quantisation(artifact.manifest):
            typer.echo(line, err=True)
    for artifact in engines:
        typer.echo(f"{artifact.path.name}: {artifact.size / 1e6:.2f} MB, {_engine(artifact.manifest)}", err=True)
    typer.echo(f"done in {seconds:.1f} s", err=True)
    say("\n".join(paths), published)


_OF_AN_ENGINE = ("file", "sha256", "size", "flavour", "tensorrt", "gpu", "profiles", "seconds", "executed")


def _engine(manifest: Mapping) -> str:
    info = PlanInfo.from_manifest(manifest, manifest["file"])
    where = f" for {info.gpu}" if info.gpu else ""
    shapes = ", ".join(map(str, info.profiles))
    found = manifest["validated"]
    run = f"executed, {found['worst']:.1e} from {found['against']}" if manifest["executed"] else "built, not executed"
    return f"{info.flavour} {info.tensorrt}{where}, {shapes}; {run}"


def _table(trials: Sequence[Trial]) -> list[str]:
    if not trials:
        return []
    rows = [("precision", "size", "p50", "error", "")]
    for trial in trials:
        size = "" if trial.size is None else f"{trial.size / 1e6:.2f} MB"
        p50 = "" if trial.p50 is None else f"{trial.p50 * 1e3:.1f} ms"
        rows.append((trial.precision, size, p50, trial.error, trial.outcome))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    ]


def _quantisation(manifest: Mapping) -> list[str]:
    """What a reader of the terminal should know of an INT8 graph, a line each."""
    facts = manifest.get("quantisation")
    if facts is None or manifest["spec"]["kind"] != "pair":
        return []
    agreement, count = facts["agreement"], len(facts["cost_alone"])
    lines = [
        f"  {agreement['pairs']} held-out pairs against float32: mean relative error {agreement['error']:.2%}, "
        f"Spearman {agreement['spearman']:.5f}, Kendall {agreement['kendall']:.4f}, "
        f"{agreement['triplets']:.2%} of the triplets in another order"
    ]
    found = Agreement(**agreement)
    worst, error = found.worst_kind()
    if others := found.kinds_not_judged():
        lines.append(f"  not judged by themselves, since hardly a pair reaches {SMALL:g}: {', '.join(others)}")
    lines.append(
        f"  worst kind {worst}: {error:.1%}; {agreement['small']} pairs below {SMALL:g} are "
        f"at most {agreement['small_error']:.4f} off: INT8 is not for nearly equal images"
    )
    for key, what in (("in_float", "in float"), ("two_planes", "in INT8 with an input of two planes")):
        names = [f"{name} ({cost:.2%} alone)" for name, cost in facts[key].items()]
        if names:
            lines.append(f"  {len(names)} of {count} convolutions {what}: {', '.join(names)}")
    if facts["target"] == "tensorrt":
        lines.append("  the file keeps its weights in float32; the engine that is built from it has them in INT8")
    return lines


def report_check(proof: Proof, as_json: bool) -> None:
    """What was proven again; and of INT8 also what was not, lest the answer be taken for more than it is."""
    passed = f"{proof.path}: passed all the same"
    not_proven = _not_proven(proof.path) if proof.info.precision == "int8" else ""
    if not_proven:
        typer.echo(f"not proven again: {not_proven}", err=True)
    if as_json:
        say(
            json.dumps(
                {
                    "path": str(proof.path),
                    "passed": True,
                    "structure": proof.rules,
                    "validation": proof.report.as_dict(),
                }
                | ({"not_proven": not_proven} if not_proven else {}),
                indent=2,
            ),
            passed,
        )
        return
    say(
        f"{proof.path}: passed; {len(proof.rules)} rules of structure, {len(proof.report.cases)} cases against "
        f"{proof.info.reference}, worst error {_worst(proof.report.worst)}",
        passed,
    )


def _not_proven(path: Path) -> str:
    manifest = manifest_path(path)
    where = f"in {manifest}, under quantisation" if manifest.exists() else f"in {manifest.name}, which is missing"
    return (
        "its error on photographs, since the limits of the built-in cases are coarse for INT8; "
        f"what was measured at its export is {where}"
    )


def _worst(errors: dict[str, float]) -> str:
    return ", ".join(f"{quantity} {error:.1e}" for quantity, error in errors.items())
