"""--precision auto: what is tried, timed, discarded and kept."""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fake_tensorrt
import numpy as np
import pytest
from export_command import Backbones, Call, Exported
from fake_cuda import FakeCuda

from lpips_export import auto
from lpips_export.auto import Trial, export_auto
from lpips_export.errors import PublishError, ValidationError
from lpips_export.limits import LIMITS
from lpips_export.manifest import Artifact
from lpips_export.profiles import EngineSpec
from lpips_export.spec import ExportSpec
from lpips_runtime import Scorer
from lpips_runtime.errors import ProviderError
from lpips_runtime.models import manifest_path

pytestmark = pytest.mark.usefixtures("quick")

Spec = Callable[..., ExportSpec]


@pytest.fixture
def spec(random_backbone: Backbones) -> Spec:
    def make(**fields: Any) -> ExportSpec:
        return ExportSpec(backbone=random_backbone("alex"), allow_unknown_weights=True, **fields)

    return make


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the precisions these medians, in seconds, instead of running them."""

    def clock(**seconds: float) -> None:
        def time(made: dict, trials: dict[str, Trial], *_: object) -> None:
            for precision in made:
                trials[precision].p50 = seconds[precision]

        monkeypatch.setattr(auto, "_time", time)

    return clock


@pytest.fixture
def premade(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Artifact]]:
    """Exports are copies of ones that were made before, to save the time of tracing them."""

    def export(spec: ExportSpec, sources: object, folder: Path, *_: object, **__: object) -> list[Artifact]:
        fields = {} if spec.precision == "fp32" else {"precision": spec.precision}
        graph = exported(net="alex", quick=True, **fields)[0]
        folder.mkdir()
        shutil.copy(graph, folder)
        manifest = json.loads(manifest_path(graph).read_text())
        return [Artifact(folder / graph.name, manifest, manifest["size"])]

    monkeypatch.setattr(auto, "export_sources", export)
    return export


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("premade")
@pytest.mark.parametrize(("fastest", "other"), [("fp32", "fp16"), ("fp16", "fp32")])
def test_the_fastest_is_kept_under_its_own_name_and_no_other(
    fastest: str, other: str, spec: Spec, clocked: Callable[..., None], tmp_path: Path
) -> None:
    clocked(**{fastest: 0.01, other: 0.02})
    artifacts, trials = export_auto(spec(), tmp_path, shapes=EngineSpec())
    (path,) = (artifact.path for artifact in artifacts)
    assert names(tmp_path) == [path.name, f"{path.name}.json"]
    assert re.fullmatch(rf"lpips_alex_{fastest}_custom-[0-9a-f]{{8}}\.onnx", path.name)
    assert {trial.precision: trial.outcome for trial in trials} == {
        fastest: "kept",
        other: "slower",
        "int8": "not tried: needs --calibration DIR",
    }
    by_precision = {trial.precision: trial for trial in trials}
    assert by_precision[fastest].size == path.stat().st_size
    assert "worst, lpips 0.1.4 in float64" in by_precision[other].error
    with Scorer(path) as scorer:
        assert scorer.info.precision == fastest


@pytest.mark.usefixtures("premade")
def test_what_can_be_used_is_really_run(spec: Spec, tmp_path: Path) -> None:
    _, trials = export_auto(spec(), tmp_path, shapes=EngineSpec(opt=((2, 40, 48),)))
    seconds = {trial.precision: trial.p50 for trial in trials}
    assert seconds.pop("int8") is None
    assert all(value is not None and 0 < value < 10 for value in seconds.values())
    kept = next(trial for trial in trials if trial.outcome == "kept")
    assert kept.p50 == min(value for value in seconds.values() if value is not None)


@pytest.mark.usefixtures("premade")
def test_candidates_are_run_on_images_of_the_shape_that_was_asked_for(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    score = Scorer.score

    def look(self: Scorer, *images: np.ndarray) -> Any:
        seen.update(image.shape for image in images)
        return score(self, *images)

    monkeypatch.setattr(Scorer, "score", look)
    monkeypatch.setattr(auto, "_ROUNDS", 1)
    export_auto(spec(), tmp_path, shapes=EngineSpec(opt=((3, 33, 71),)))
    assert seen == {(3, 33, 71, 3)}


def test_a_precision_whose_proof_fails_is_discarded_and_the_others_go_on(
    spec: Spec,
    clocked: Callable[..., None],
    premade: Callable[..., list[Artifact]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def export(of: ExportSpec, *others: Any, **named: Any) -> list[Artifact]:
        if of.precision == "fp16":
            raise ValidationError("case 'noise': distance is 0.2")
        return premade(of, *others, **named)

    clocked(fp32=0.02, fp16=0.01)
    monkeypatch.setattr(auto, "export_sources", export)
    (artifact,), trials = export_auto(spec(), tmp_path, shapes=EngineSpec())
    assert "_fp32_" in artifact.path.name
    half = next(trial for trial in trials if trial.precision == "fp16")
    assert half == Trial("fp16", outcome="discarded: case 'noise': distance is 0.2")


@pytest.mark.usefixtures("premade")
def test_if_nothing_runs_here_nothing_is_published(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise ProviderError("no such device")

    monkeypatch.setattr(auto, "Scorer", refuse)
    with pytest.raises(
        ProviderError, match=r"fp32: discarded: cannot run here: no such device; fp16: .*int8: not tried"
    ):
        export_auto(spec(), tmp_path, shapes=EngineSpec())
    assert names(tmp_path) == []


@pytest.mark.usefixtures("premade")
def test_what_must_stay_in_its_place_is_seen_before_the_work(
    spec: Spec, clocked: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked(fp32=0.02, fp16=0.01)
    (artifact,), _ = export_auto(spec(), tmp_path, shapes=EngineSpec())
    artifact.path.with_name(artifact.path.name + ".json").unlink()
    monkeypatch.setattr(auto, "export_sources", lambda *_, **__: pytest.fail("was exported first"))
    with pytest.raises(PublishError, match="exists without a readable manifest"):
        export_auto(spec(), tmp_path, shapes=EngineSpec())


@pytest.mark.usefixtures("premade")
def test_an_engine_that_fails_is_named_where_it_would_have_been(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tensorrt.install(monkeypatch, fails={"build"}, words="Could not find any implementation")
    with pytest.raises(ProviderError) as caught:
        export_auto(spec(), tmp_path / "out", shapes=EngineSpec(), engine=True)
    message = str(caught.value)
    for precision in ("fp32", "fp16"):
        engine = rf"{tmp_path}/out/lpips_alex_{precision}_custom-[0-9a-f]{{8}}_trt\.engine"
        assert re.search(rf"{precision}: discarded: TensorRT did not build .*; not published: {engine}; ", message)
    assert ".lpips-export-" not in message, "a folder that is gone"
    assert names(tmp_path) == []


@pytest.mark.usefixtures("premade")
def test_what_cannot_be_opened_is_named_without_the_folder_that_it_was_tried_in(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise ProviderError(f"{path}: no such device")

    monkeypatch.setattr(auto, "Scorer", refuse)
    with pytest.raises(ProviderError) as caught:
        export_auto(spec(), tmp_path, shapes=EngineSpec())
    name = r"lpips_alex_fp32_custom-[0-9a-f]{8}\.onnx"
    assert re.match(f"fp32: discarded: cannot run here: {name}: no such device; fp16: ", str(caught.value))


class Executed:
    """What a Scorer of an engine is to auto: here it runs the engine's graph and gives `share` of its distance."""

    share = 1.0
    held: ClassVar[list[Path]] = []
    most_held = 0

    def __init__(self, path: Path, **options: Any) -> None:
        graph = path.with_name(re.sub("_trt.engine$", ".onnx", path.name))
        self._scorer, self._is_engine = Scorer(graph, **options), graph != path
        self._path = path
        self.info = self._scorer.info
        self.provenance = {"runtime": {"provider": "tensorrt" if self._is_engine else "cpu"}}
        if self._is_engine:
            self.held.append(path)
            Executed.most_held = max(Executed.most_held, len(self.held))

    def score(self, *images: np.ndarray) -> Any:
        return self._scorer.score(*images) * (self.share if self._is_engine else 1.0)

    def close(self) -> None:
        if self._is_engine:
            self.held.remove(self._path)

    def __enter__(self) -> "Executed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, premade: object) -> Iterator[type[Executed]]:
    """Engines that are built, and run, by stand-ins."""
    fake_tensorrt.install(monkeypatch)
    monkeypatch.setattr(auto, "Scorer", Executed)
    monkeypatch.setattr(auto, "_ROUNDS", 2)
    monkeypatch.setattr(Executed, "most_held", 0)
    yield Executed
    assert Executed.held == []


SMALL = EngineSpec(opt=((2, 40, 48),))


def test_an_engine_is_compared_with_its_graph_and_its_manifest_says_so(
    spec: Spec, executed: type[Executed], tmp_path: Path
) -> None:
    artifacts, trials = export_auto(spec(), tmp_path, shapes=SMALL, engine=True)
    manifest = json.loads(manifest_path(artifacts[-1].path).read_text())
    assert manifest["executed"] is True
    assert manifest["validated"] == {"against": "its graph on the CPU provider, 2x40x48", "pairs": 4, "worst": 0.0}
    assert sorted(trial.outcome for trial in trials) == ["kept", "not tried: needs --calibration DIR", "slower"]
    assert executed.most_held == 1, "each reserves the memory of its largest shape"


@pytest.mark.parametrize("share", [1.01, 0.0, math.nan])
def test_an_engine_that_gives_other_numbers_than_its_graph_is_discarded(
    spec: Spec, executed: type[Executed], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executed, "share", share)
    monkeypatch.setitem(LIMITS, "fp16", LIMITS["fp32"])
    with pytest.raises(ProviderError, match=r"fp32: discarded: fails its proof here: gives .*, where its graph gives"):
        export_auto(spec(), tmp_path, shapes=SMALL, engine=True)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("executed")
def test_each_engine_is_built_with_the_timings_of_the_one_before(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = fake_tensorrt.install(monkeypatch)
    shapes = EngineSpec(opt=((2, 40, 48),), timing_cache=tmp_path / "timings")
    export_auto(spec(), tmp_path / "out", shapes=shapes, engine=True)
    assert api.asked["timings"] == [b"", b"timings of 11.4"]


def test_without_a_gpu_engines_cannot_be_timed(call: Call, own: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda(gpus=0))
    assert call("--precision", "auto", "--engine", *own) == 3
    assert call.error.startswith("error: --precision auto --engine times engines where they run: ")
    assert call.error.rstrip().endswith("leave out --engine, or name a precision")


# --- the command line


def test_the_command_prints_the_table_it_decided_from(
    call: Call, own: list[object], clocked: Callable[..., None], tmp_path: Path
) -> None:
    clocked(fp32=0.0123, fp16=0.0456)
    assert call("--precision", "auto", *own) == 0
    last = call.out.splitlines()[-1]
    assert Path(last).is_file()
    assert "_fp32_" in last
    table = call.err[call.err.index("precision  ") :].splitlines()[:4]
    assert re.fullmatch(r"precision +size +p50 +error", table[0])
    assert re.fullmatch(r"fp32 +9\.\d\d MB +12\.3 ms +\S+ worst, lpips 0\.1\.4 in float64 +kept", table[1])
    assert re.fullmatch(r"fp16 +4\.\d\d MB +45\.6 ms +\S+ worst, lpips 0\.1\.4 in float64 +slower", table[2])
    assert re.fullmatch(r"int8 +not tried: needs --calibration DIR", table[3])


@pytest.mark.usefixtures("premade")
def test_json_has_the_trials(call: Call, own: list[object], clocked: Callable[..., None]) -> None:
    clocked(fp32=0.0123, fp16=0.0456)
    assert call("--precision", "auto", "--opt", "1x64x64", "--json", *own) == 0
    result = json.loads(call.out)
    assert Path(result["path"]).is_file()
    assert [(trial["precision"], trial["p50"]) for trial in result["trials"]] == [
        ("fp32", 0.0123),
        ("fp16", 0.0456),
        ("int8", None),
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--precision", "auto", "--min", "1x64x64"], "--min without --engine"),
        (["--precision", "fp16", "--opt", "1x64x64"], "--opt without --engine"),
        (["--calibration", "photos"], "--calibration with --precision fp32: it is for int8 and auto; leave it out"),
        (["--precision", "fp16", "--max-error", "0.1"], "--max-error with --precision fp16: "),
        (["--target", "tensorrt"], "--target with --precision fp32: "),
        (["--target", "openvino", "--precision", "fp16"], "error: --target openvino is an arrangement of the float32"),
        (["--target", "openvino", "--precision", "auto"], "error: --target openvino is an arrangement of the float32"),
        (["--target", "openvino", "--engine"], "error: --engine with --target openvino: engines are built by TensorRT"),
        *(
            (["--precision", "auto", option, value], f"error: {option} without --calibration: it is for INT8, which")
            for option, value in (("--max-error", "0.1"), ("--target", "cpu"), ("--calibration-count", "16"))
        ),
        (["--precision", "auto", "--opt", "1x16x16"], "--opt 1x16x16: alex takes no side below 31 pixels"),
    ],
)
def test_options_that_do_not_apply_are_an_error(call: Call, arguments: list[str], complaint: str) -> None:
    assert call(*arguments) == 2
    assert complaint in call.error
    assert len(call.error.splitlines()) <= 2
