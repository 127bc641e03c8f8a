"""What lpips-export says of its results: a path or JSON on stdout, figures on stderr."""

import json

import typer

from .export import Proof
from .guard import say
from .manifest import Artifact

__all__ = ["report_check", "report_export"]


def report_export(artifacts: list[Artifact], seconds: float, as_json: bool) -> None:
    published = f"the artifact is published all the same: {artifacts[0].path}"
    if as_json:
        files = [
            {key: artifact.manifest[key] for key in ("file", "sha256", "size", "weights", "seconds")}
            | {"path": str(artifact.path), "worst": artifact.manifest["validation"]["worst"]}
            for artifact in artifacts
        ]
        result = {"path": str(artifacts[0].path), "seconds": round(seconds, 1), "files": files}
        say(json.dumps(result, indent=2), published)
        return
    for artifact in artifacts:
        validation = artifact.manifest["validation"]
        typer.echo(
            f"{artifact.path.name}: {artifact.size / 1e6:.2f} MB, {len(validation['cases'])} cases against "
            f"{validation['against']}, worst error {_worst(validation['worst'])}",
            err=True,
        )
    typer.echo(f"done in {seconds:.1f} s", err=True)
    say(str(artifacts[0].path), published)


def report_check(proof: Proof, as_json: bool) -> None:
    passed = f"{proof.path}: passed all the same"
    if as_json:
        say(
            json.dumps(
                {
                    "path": str(proof.path),
                    "passed": True,
                    "structure": proof.rules,
                    "validation": proof.report.as_dict(),
                },
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


def _worst(errors: dict[str, float]) -> str:
    return ", ".join(f"{quantity} {error:.1e}" for quantity, error in errors.items())
