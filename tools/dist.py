"""`make dist`: the wheels of both packages, and one of every exported model, in dist/.

All are built before any is put there, in one environment with hatchling, which writes the same bytes for the same
content.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError

from build import BuildBackendException, BuildException, FailedProcessError, ProjectBuilder
from build.env import DefaultIsolatedEnv
from pyproject_hooks import quiet_subprocess_runner

from lpips_runtime.errors import LpipsError

from .model_wheel import model_project, pair_graphs

ROOT = Path(__file__).parent.parent
PACKAGES = (ROOT / "runtime", ROOT)
ARTIFACTS = Path("artifacts")
DIST = Path("dist")

Build = Callable[[Path, Path], Path]


@contextmanager
def builder() -> Iterator[Build]:
    """(folder of a project, folder for its wheel) -> the wheel, built with what lpips-runtime's own build requires.

    Raises what `build` raises: BuildException, BuildBackendException, FailedProcessError.
    """
    with DefaultIsolatedEnv() as environment:

        def project_builder(project: Path) -> ProjectBuilder:
            return ProjectBuilder.from_isolated_env(environment, project, quiet_subprocess_runner)

        environment.install(project_builder(PACKAGES[0]).build_system_requires)
        yield lambda project, folder: Path(project_builder(project).build("wheel", folder))


def build_all(artifacts: Path, dist: Path) -> list[Path]:
    """Build every wheel into dist, in place of those that were built before.

    Raises LpipsError for a file in `artifacts` that is not to be packed, before anything is built.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = []
        for graph in pair_graphs(artifacts):
            print(f"checking {graph}", flush=True)
            models.append(model_project(graph, work / graph.stem))
        wheels = []
        with builder() as build:
            for project in (*PACKAGES, *models):
                wheels.append(build(project, work / "dist"))
                print(f"built {wheels[-1].name}: {_megabytes(wheels[-1:])}", flush=True)
        dist.mkdir(parents=True, exist_ok=True)
        for old in dist.glob("lpips_*.whl"):
            old.unlink()
        return [Path(shutil.move(wheel, dist / wheel.name)) for wheel in wheels]


def _megabytes(wheels: list[Path]) -> str:
    return f"{sum(wheel.stat().st_size for wheel in wheels) / 1e6:.2f} MB"


def main() -> int:
    try:
        wheels = build_all(ARTIFACTS, DIST)
    except LpipsError as error:
        print(f"error: {error}; nothing was built", file=sys.stderr)
        return error.exit_code
    except (BuildException, BuildBackendException, FailedProcessError) as error:
        # The last lines of pip or hatchling say why.
        cause = error.exception if isinstance(error, BuildBackendException | FailedProcessError) else error
        said = (cause.output or b"").decode(errors="replace") if isinstance(cause, CalledProcessError) else ""
        print(f"{said}error: {error}; nothing was built", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 3
    print(f"{DIST}/: {len(wheels)} wheels, {_megabytes(wheels)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
