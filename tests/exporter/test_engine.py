"""Engines, really built: TensorRT-RTX needs no GPU for that. None is executed here."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from export_command import Backbones, Exported
from int8_graph import Int8Net
from traced_graph import pair_graph

from lpips_export import trt, trt_library
from lpips_export.backbones import BACKBONES
from lpips_export.engine import build_engine, plan_engine
from lpips_export.errors import EngineError, PublishError, SpecError
from lpips_export.manifest import Artifact
from lpips_export.profiles import EngineSpec
from lpips_export.progress import Advance, Progress
from lpips_export.spec import artifact_stem
from lpips_export.tracing import serialized
from lpips_runtime.contract import ModelInfo
from lpips_runtime.models import manifest_path
from lpips_runtime.plan import PlanInfo, Profile

Graphs = Callable[[str, str], Path]
SMALL = EngineSpec(max=((1, 64, 64),))


pytestmark = pytest.mark.usefixtures("rtx")


@pytest.fixture(scope="module")
def graph_of(
    exported: Exported,
    random_backbone: Backbones,
    int8_net: Callable[[str], Int8Net],
    tmp_path_factory: pytest.TempPathFactory,
) -> Graphs:
    """net, kind of graph -> an exported graph with random weights; the engines land in a folder of each test."""

    def find(net: str, kind: str) -> Path:
        if kind == "int8":
            path = tmp_path_factory.mktemp("int8") / f"{artifact_stem(int8_net(net).info('tensorrt'))}.onnx"
            path.write_bytes(serialized(int8_net(net).graph("tensorrt")))
            return path
        if kind == "fp16":
            model, info = pair_graph(net, random_backbone(net))
            path = tmp_path_factory.mktemp("fp16") / f"{artifact_stem(info)}.onnx"
            path.write_bytes(serialized(model))
            return path
        fields: dict[str, dict[str, Any]] = {  # those of other modules where there are some, so that it is made once
            "fp32": {"split": True},
            "uint8": {"input": "uint8", "quick": net != "alex"},
        }
        return exported(net=net, **fields[kind])[0]

    return find


@pytest.fixture
def graph(graph_of: Graphs, tmp_path: Path) -> Path:
    return copy(graph_of("alex", "fp32"), tmp_path)


def copy(graph: Path, folder: Path) -> Path:
    (folder / graph.name).write_bytes(graph.read_bytes())
    return folder / graph.name


def info_of(graph: Path) -> ModelInfo:
    metadata = {entry.key: entry.value for entry in onnx.load(graph).metadata_props}
    return ModelInfo.from_metadata(metadata, graph)


def build(graph: Path, spec: EngineSpec = SMALL, **options: Any) -> Artifact:
    info = info_of(graph)
    return build_engine(graph, info, plan_engine(spec, info.net, info.min_size), **options)


@contextmanager
def configs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The builder configurations that were used."""
    seen: list[Any] = []
    add_profile = trt._add_profile

    def spy(builder: Any, config: Any, *rest: Any) -> None:
        seen.append(config)
        add_profile(builder, config, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trt, "_add_profile", spy)
        yield seen


# --- every graph


@pytest.mark.parametrize("net", BACKBONES)
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "uint8"])
def test_every_graph_of_every_net_becomes_an_engine(
    graph_of: Graphs, net: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = pytest.importorskip("tensorrt_rtx_bindings")
    graph = copy(graph_of(net, kind), tmp_path)
    with configs(monkeypatch) as seen:
        artifact = build(graph, EngineSpec())
    (config,) = seen
    assert not config.get_flag(api.BuilderFlag.TF32), "on by default"

    assert artifact.path == tmp_path / f"{graph.stem}_rtx.engine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [graph.name, artifact.path.name, f"{artifact.path.name}.json"]
    )
    plan = artifact.path.read_bytes()
    manifest = json.loads(manifest_path(artifact.path).read_text(encoding="utf-8"))
    assert manifest == json.loads(json.dumps(artifact.manifest))
    described = PlanInfo.from_manifest(manifest, artifact.path)
    smallest = BACKBONES[net].min_size
    assert described == PlanInfo(
        sha256=hashlib.sha256(plan).hexdigest(),
        onnx=graph.name,
        onnx_sha256=hashlib.sha256(graph.read_bytes()).hexdigest(),
        info=info_of(graph),
        flavour="tensorrt-rtx",
        tensorrt=api.__version__,
        gpu=None,
        compute_capability=None,
        profiles=(Profile((1, smallest, smallest), (1, 256, 256), (4, 1024, 1024)),),
        version_compatible=False,
        hardware_compatible=True,
    )
    assert (manifest["file"], manifest["size"], artifact.size) == (artifact.path.name, len(plan), len(plan))
    assert (manifest["executed"], manifest["workspace"]) == (False, None)
    assert manifest["validated"].startswith("built, not executed")
    assert manifest["tools"]["tensorrt-rtx"] == api.__version__
    assert manifest["precision"] == {"uint8": "fp32"}.get(kind, kind)
    # A plan that holds less than the weights would not be one of this graph.
    halved = {"fp32": 1.0, "uint8": 1.0, "fp16": 0.5, "int8": 0.2}[kind]
    parameters = sum(math.prod(tensor.dims) for tensor in onnx.load(graph_of(net, "fp32")).graph.initializer)
    assert len(plan) > 4 * parameters * halved


def test_the_graph_is_built_with_every_profile(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EngineSpec(min=((1, 64, 64), (2, 128, 96)), max=((4, 64, 64), (2, 256, 256)))
    with configs(monkeypatch) as seen:
        artifact = build(graph, spec)
    assert seen[-1].num_optimization_profiles == 2
    assert PlanInfo.from_manifest(artifact.manifest, "").profiles == (
        Profile((1, 64, 64), (1, 64, 64), (4, 64, 64)),
        Profile((2, 128, 96), (2, 256, 256), (2, 256, 256)),
    )


def test_the_workspace_is_a_limit(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with configs(monkeypatch) as seen:
        artifact = build(graph, EngineSpec(workspace=10**9))
    api = pytest.importorskip("tensorrt_rtx_bindings")
    assert seen[-1].get_memory_pool_limit(api.MemoryPoolType.WORKSPACE) == 10**9
    assert artifact.manifest["workspace"] == 10**9


# --- what goes wrong


def test_too_little_memory_is_said_in_tensorrts_words_and_the_graph_stays(graph: Path) -> None:
    """The default profile takes 0.4 GB."""
    with pytest.raises(EngineError) as caught:
        build(graph, EngineSpec(workspace=10**8))
    message = str(caught.value)
    assert message.startswith("TensorRT-RTX did not build the engine: Error Code 2: OutOfMemory; lower --max, ")
    assert message.endswith(
        "; lower --max, free device memory, or raise --workspace if you gave it; "
        f"the graph is published all the same: {graph}"
    )
    assert [path.name for path in graph.parent.iterdir()] == [graph.name]


def test_a_graph_that_it_cannot_take_is_refused_with_the_node_and_its_words(graph: Path) -> None:
    model = onnx.load(graph)
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Unheard", "elsewhere"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(model, graph)
    with pytest.raises(EngineError, match=r"^TensorRT-RTX [\d.]+ does not take the graph: .*Unheard") as caught:
        build(graph)
    assert node.name in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert "checkMacros" not in str(caught.value)


def test_what_is_no_graph_is_refused(graph: Path) -> None:
    info = info_of(graph)
    graph.write_bytes(b"no graph" * 100)
    with pytest.raises(EngineError, match=r"^TensorRT-RTX [\d.]+ does not take the graph: .*parse"):
        build_engine(graph, info, plan_engine(SMALL, info.net, info.min_size))


def test_uint8_is_cast_before_anything_else() -> None:
    """Of uint8 tensors NVIDIA's parser takes a Cast alone: the day this fails, metric.py may transpose first."""
    helper, kind = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("reference", kind.UINT8, ["batch", "height", "width", 3])
    result = helper.make_tensor_value_info("distance", kind.FLOAT, ["batch", 3, "height", "width"])
    nodes = [
        helper.make_node("Transpose", ["reference"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["distance"], to=kind.FLOAT),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "turned", [image], [result]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    with pytest.raises(EngineError, match="type UInt8"):
        trt.build_plan(
            trt_library.find_library(),
            model.SerializeToString(),
            [{"reference": ((1, 64, 64, 3), (1, 64, 64, 3), (1, 64, 64, 3))}],
            EngineSpec(),
            trt.Log(lambda _: None),
            lambda: None,
        )


def test_a_profile_that_it_refuses_is_an_error(graph: Path) -> None:
    """What EngineSpec lets through and TensorRT answers with -1 and no exception."""
    with pytest.raises(EngineError, match=r"^TensorRT-RTX does not take the profile reference 4x3x64x64 to .*MIN"):
        trt.build_plan(
            trt_library.find_library(),
            graph.read_bytes(),
            [dict.fromkeys(("reference", "distorted"), ((4, 3, 64, 64), (4, 3, 64, 64), (2, 3, 64, 64)))],
            EngineSpec(),
            trt.Log(lambda _: None),
            lambda: None,
        )


@pytest.mark.parametrize("field", ["timing_cache", "version_compatible", "hardware_compatible"])
def test_options_without_a_meaning_for_rtx_are_wrong_calls(field: str, tmp_path: Path) -> None:
    value: Any = tmp_path / "cache" if field == "timing_cache" else True
    spec = EngineSpec(**{field: value})
    with pytest.raises(SpecError, match=f"^--{field.replace('_', '-')} with TensorRT-RTX: .*; leave the option out$"):
        plan_engine(spec, "alex", 31)


def test_int8_for_cpus_is_refused_before_anything_is_built(graph: Path) -> None:
    info = replace(info_of(graph), precision="int8", target="cpu")
    job = plan_engine(SMALL, info.net, info.min_size)
    with pytest.raises(SpecError, match=r"TensorRT takes no INT8 graph made for CPUs; export it with --target tensor"):
        build_engine(graph, info, job)


def test_another_engine_is_replaced_only_when_asked_for(graph: Path) -> None:
    before = build(graph).path.read_bytes()
    assert build(graph).path.read_bytes()  # the same specification
    other = EngineSpec(max=((2, 64, 64),))
    with pytest.raises(PublishError, match=r"_rtx\.engine: exists and differs in profiles; replace it with --overwri"):
        build(graph, other)
    assert build(graph, other, overwrite=True).path.read_bytes() != before


# --- what it says


def test_nothing_of_tensorrts_log_reaches_the_terminal_and_all_of_it_the_details(
    graph: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    details: list[str] = []

    class Recording(Progress):
        def detail(self, text: str) -> None:
            details.append(text)

    build(graph, progress=Recording())
    assert capfd.readouterr() == ("", "")
    assert any("Engine generation completed" in line for line in details)


def test_progress_comes_from_the_monitor_and_ends_at_a_hundred(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[tuple[str, int | None]] = []
    count = 0

    class Recording(Progress):
        @contextmanager
        def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
            stages.append((title, total))

            def advance() -> None:
                nonlocal count
                count += 1

            yield advance

    complete = trt.Percentage.complete
    until_complete: list[int] = []

    def spy(percentage: trt.Percentage) -> None:
        until_complete.append(count)
        complete(percentage)

    monkeypatch.setattr(trt.Percentage, "complete", spy)
    artifact = build(graph, progress=Recording())
    assert stages == [(f"building {artifact.path.name}", 100)]
    assert count == 100
    assert until_complete[0] > 50, "the monitor itself has counted"
