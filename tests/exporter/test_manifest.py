"""Publishing: all or nothing, nothing of another's replaced, and a manifest that says what lies beside it."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import onnx
import pytest

from lpips_export import export as export_module
from lpips_export import manifest, validate
from lpips_export.backbones import BACKBONES
from lpips_export.cases import validation_cases
from lpips_export.errors import PublishError, ValidationError
from lpips_export.export import export
from lpips_export.manifest import check_replaceable, publish, specification, staging
from lpips_export.spec import ExportSpec, artifact_stem, describe
from lpips_export.structure import RULES
from lpips_export.weights import LIN_SHA256, BackboneWeights, LinWeights
from lpips_runtime import __version__
from lpips_runtime.contract import UNSEALED, ModelInfo
from lpips_runtime.errors import DamagedModelError
from lpips_runtime.models import manifest_path, read_model
from lpips_runtime.session import Session

Exported = Callable[..., list[Path]]

# Of DESIGN.md, section 5.
METADATA = (
    *("format", "kind", "net", "version", "lin", "precision", "target", "input", "min_size", "stride", "halo", "eps"),
    *("backbone_sha256", "lin_sha256", "exporter", "reference", "license", "content_sha256"),
)


def weights(net: str = "alex", sha256: str | None = None, lin: str = "learned") -> tuple[BackboneWeights, LinWeights]:
    sha256 = sha256 or BACKBONES[net].sha256
    lin_sha256 = {"learned": LIN_SHA256[net, "0.1"], "baseline": "none", "custom": "c" * 64}[lin]
    known = sha256 == BACKBONES[net].sha256
    return BackboneWeights(net, {}, sha256, "here", "file", known, "x"), LinWeights((), lin_sha256, lin, "there", "y")


def info(kind: str = "pair", **fields: str) -> ModelInfo:
    return describe(ExportSpec(**fields), kind, *weights(fields.get("net", "alex")))  # pyright: ignore[reportArgumentType]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what may be replaced


SPEC = specification(info())


def existing(folder: Path, manifest_text: str | None, model: bytes = b"model") -> Path:
    path = folder / "lpips_alex_fp32.onnx"
    path.write_bytes(model)
    if manifest_text is not None:
        manifest_path(path).write_text(manifest_text, encoding="utf-8")
    return path


def test_nothing_is_in_the_way_of_a_new_artifact(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new" / "lpips_alex_fp32.onnx", SPEC, overwrite=False)
    assert not (tmp_path / "new").exists()


def test_the_same_specification_may_be_replaced(tmp_path: Path) -> None:
    check_replaceable(existing(tmp_path, json.dumps({"spec": SPEC})), SPEC, overwrite=False)


def test_a_newer_exporter_may_replace_what_an_older_one_made() -> None:
    assert SPEC.keys() == set(METADATA) - {"exporter", "license", "content_sha256"}


@pytest.mark.parametrize("change", [{"version": "0.0"}, {"backbone_sha256": "0" * 64}, {"stranger": "1"}])
def test_another_specification_is_kept_unless_told_otherwise(tmp_path: Path, change: dict) -> None:
    path = existing(tmp_path, json.dumps({"spec": SPEC | change}))
    with pytest.raises(PublishError) as caught:
        check_replaceable(path, SPEC, overwrite=False)
    assert str(caught.value) == (
        f"{path}: exists and differs in {next(iter(change))}; "
        "replace it with --overwrite or choose another --output-dir"
    )
    check_replaceable(path, SPEC, overwrite=True)


UNREADABLE = {
    "missing": None,
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "1",
    "no spec": "{}",
    "spec is null": '{"spec": null}',
    "spec is a list": '{"spec": ["net", "alex"]}',
    "spec is a string": '{"spec": "alex"}',
    "spec is a number": '{"spec": 1}',
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_a_model_without_a_readable_manifest_is_kept_unless_told_otherwise(tmp_path: Path, text: str | None) -> None:
    path = existing(tmp_path, text)
    with pytest.raises(PublishError) as caught:
        check_replaceable(path, SPEC, overwrite=False)
    assert str(caught.value) == (
        f"{path}: exists without a readable manifest, so it may not be ours; "
        "replace it with --overwrite or choose another --output-dir"
    )
    check_replaceable(path, SPEC, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_folder_in_the_way_is_never_replaced(tmp_path: Path, suffix: str, overwrite: bool) -> None:
    folder = tmp_path / f"lpips_alex_fp32.onnx{suffix}"
    folder.mkdir()
    with pytest.raises(PublishError) as caught:
        check_replaceable(tmp_path / "lpips_alex_fp32.onnx", SPEC, overwrite)
    assert str(caught.value) == f"{folder}: a folder is in the way; remove it or choose another --output-dir"


# --- moving into place


@pytest.fixture
def staged(tmp_path: Path) -> list[tuple[Path, dict]]:
    """Three models that passed, in a staging folder, each with its manifest's content; the pair graph first."""
    folder = tmp_path / "staging"
    folder.mkdir()
    found = []
    for kind in ("", "_features", "_compare"):
        path = folder / f"lpips_alex_fp32{kind}.onnx"
        data = f"the new {path.name}".encode()
        path.write_bytes(data)
        found.append((path, {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}))
    return found


def test_publishing_moves_models_and_manifests(tmp_path: Path, staged: list) -> None:
    artifacts = publish(staged, tmp_path)
    assert [(artifact.path, artifact.manifest) for artifact in artifacts] == [
        (tmp_path / path.name, content) for path, content in staged
    ]
    for artifact in artifacts:
        assert json.loads(manifest_path(artifact.path).read_text(encoding="utf-8")) == artifact.manifest
        assert read_model(artifact.path)[1] == artifact.manifest["sha256"]
        assert artifact.size == artifact.path.stat().st_size
    assert listing(tmp_path / "staging") == []


@pytest.mark.parametrize("fails_at", range(6))
@pytest.mark.parametrize("before", ["nothing", "older artifacts"])
def test_a_kill_while_publishing_leaves_no_model_that_a_reader_takes_for_finished(
    tmp_path: Path, staged: list, monkeypatch: pytest.MonkeyPatch, fails_at: int, before: str
) -> None:
    if before == "older artifacts":
        for path, _ in staged:
            old = tmp_path / path.name
            old.write_bytes(b"old")
            manifest_path(old).write_text(json.dumps({"sha256": hashlib.sha256(b"old").hexdigest()}), encoding="utf-8")
    moved: list[str] = []
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if len(moved) == fails_at:
            raise OSError("killed here")
        moved.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="killed here"):
        publish(staged, tmp_path)
    pair, features, compare = (path.name for path, _ in staged)
    order = [f"{pair}.json", f"{features}.json", f"{compare}.json", compare, features, pair]
    assert moved == order[:fails_at], "manifests first, the pair's model last"
    for path, content in staged:
        model = tmp_path / path.name
        if not model.exists():
            continue
        assert manifest_path(model).exists()
        complete = model.name in moved
        untouched = f"{model.name}.json" not in moved
        if complete or untouched:
            assert (read_model(model)[1] == content["sha256"]) is complete
        else:
            with pytest.raises(DamagedModelError, match="half replaced"):
                read_model(model)
    assert not (before == "nothing" and (tmp_path / pair).exists())


# --- what is not finished


@pytest.mark.parametrize("error", [None, ValidationError("no"), KeyboardInterrupt()])
def test_the_staging_folder_is_hidden_and_goes_whatever_happens(tmp_path: Path, error: BaseException | None) -> None:
    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected, staging(tmp_path / "a" / "b") as folder:
        assert folder.parent == tmp_path / "a" / "b"
        assert folder.name.startswith(".")
        (folder / "lpips_alex_fp32.onnx").write_bytes(b"half")
        if error:
            raise error
    assert listing(tmp_path) == []


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_export_left_goes_and_what_a_living_one_works_on_stays(tmp_path: Path) -> None:
    abandoned = tmp_path / f".lpips-export-{dead_process()}-abc"
    living = tmp_path / f".lpips-export-{os.getppid()}-abc"
    others = [tmp_path / name for name in (".lpips-export-notes", ".lpips", "lpips-export-1-x")]
    for folder in (abandoned, living, *others):
        folder.mkdir()
        (folder / "lpips_alex_fp32.onnx").write_bytes(b"half")
    with staging(tmp_path), staging(tmp_path):
        pass
    assert listing(tmp_path) == sorted(folder.name for folder in (living, *others))


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, ValidationError])
def test_folders_that_were_made_for_an_export_that_failed_go_with_it(
    tmp_path: Path, stopped_by: type[BaseException]
) -> None:
    (tmp_path / "mine").mkdir()
    for folder in ("new", "mine", "mine/new/and/below"):
        with pytest.raises(stopped_by), staging(tmp_path / folder):
            raise stopped_by
    assert listing(tmp_path) == ["mine"]
    assert listing(tmp_path / "mine") == []


def test_a_folder_that_was_made_for_an_export_stays_with_what_is_in_it(tmp_path: Path) -> None:
    with staging(tmp_path / "new" / "out"):
        (tmp_path / "new" / "another's").write_text("published meanwhile")
    assert listing(tmp_path / "new") == ["another's"]


@pytest.fixture
def spec(random_backbone: Callable[[str], Path]) -> ExportSpec:
    return ExportSpec(backbone=random_backbone("alex"), allow_unknown_weights=True)


@pytest.fixture
def instant(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that takes a second: what tracing gives is read from a file, and validated on three cases."""
    graphs = {path.stem.rpartition("_")[2]: path for path in exported(net="alex", split=True)}
    pair = exported(net="alex", split=True)[0]

    def trace(encoder: object, comparator: object, info: ModelInfo) -> onnx.ModelProto:
        model = onnx.load(graphs.get(info.kind, pair))
        next(entry for entry in model.metadata_props if entry.key == "lpips.content_sha256").value = UNSEALED
        return model

    monkeypatch.setattr(export_module, "trace", trace)
    cases = validate.validation_cases
    monkeypatch.setattr(validate, "validation_cases", lambda *of: itertools.islice(cases(*of), 3))


@pytest.mark.usefixtures("instant")
def test_an_output_folder_that_is_a_file_is_refused(spec: ExportSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PublishError) as caught:
        export(spec, tmp_path / "file")
    assert str(caught.value) == f"{tmp_path / 'file'}: is no folder; choose another --output-dir"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("where", ["{}/file/below", "/proc/lpips"])
def test_an_output_folder_that_cannot_be_made_is_named(spec: ExportSpec, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("mine")
    folder = where.format(tmp_path)
    with pytest.raises(PublishError) as caught:
        export(spec, Path(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder}: cannot be written: ")
    assert message.endswith("; nothing was published, choose another --output-dir")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space or choose another --output-dir"),
        (errno.EDQUOT, "free space or choose another --output-dir"),
        (errno.EACCES, "make it writable or choose another --output-dir"),
        (errno.EPERM, "make it writable or choose another --output-dir"),
        (errno.EROFS, "make it writable or choose another --output-dir"),
        (errno.EIO, "choose another --output-dir"),
    ],
)
def test_what_is_advised_fits_why_nothing_can_be_written(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(PublishError) as caught, staging(tmp_path):
        raise OSError(number, os.strerror(number), "graph")
    assert str(caught.value) == f"graph: cannot be written: {os.strerror(number)}; nothing was published, {advice}"


@pytest.mark.usefixtures("instant")
def test_a_full_disk_leaves_nothing(spec: ExportSpec, tmp_path: Path) -> None:
    # Python ignores SIGXFSZ, so that a write over the limit fails as on a full disk does.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(PublishError, match=r"cannot be written: File too large; nothing was published"):
            export(spec, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("instant")
def test_one_graph_that_fails_keeps_all_from_being_published(
    spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_case = validate._run_case

    def fail_on_compare(session: Session, *rest: Any) -> validate.CaseReport:
        if session.info.kind == "compare":
            raise ValidationError("the last one is off")
        return run_case(session, *rest)

    monkeypatch.setattr(validate, "_run_case", fail_on_compare)
    with pytest.raises(ValidationError, match="the last one is off"):
        export(ExportSpec(backbone=spec.backbone, allow_unknown_weights=True, split=True), tmp_path)
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("instant")
def test_overwrite_replaces_model_and_manifest(spec: ExportSpec, tmp_path: Path) -> None:
    (artifact,) = export(spec, tmp_path)
    good = artifact.path.read_bytes()
    for text in (None, json.dumps({"spec": {}})):
        artifact.path.write_bytes(b"somebody's own")
        manifest_path(artifact.path).unlink()
        if text is not None:
            manifest_path(artifact.path).write_text(text, encoding="utf-8")
        with pytest.raises(PublishError, match="--overwrite"):
            export(spec, tmp_path)
        assert artifact.path.read_bytes() == b"somebody's own"
        export(spec, tmp_path, overwrite=True)
        assert read_model(artifact.path)[0] == good


# --- real processes


@contextlib.contextmanager
def lpips_export(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = Path(sys.executable).with_name("lpips-export")
    with subprocess.Popen(
        [str(command), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"the export ended without saying {beginning!r}")


# Signal -> exit code, and what stderr ends with.
SIGNALS = {
    signal.SIGINT: (130, "interrupted; nothing was published\n"),
    signal.SIGTERM: (143, "interrupted; nothing was published\n"),
    signal.SIGKILL: (-signal.SIGKILL, ""),
}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_an_export_that_is_stopped_leaves_nothing_that_looks_finished(
    tmp_path: Path, random_backbone: Callable[[str], Path], number: signal.Signals
) -> None:
    out = tmp_path / "new" / "out"
    own = ("--backbone", random_backbone("alex"), "--allow-unknown-weights", "--output-dir", out)
    with lpips_export(*own, "--split") as process:
        wait_for(process, "tracing lpips_alex_fp32_custom-")
        process.send_signal(number)
        stdout, stderr = process.communicate()
    code, last = SIGNALS[number]
    assert (process.returncode, stdout) == (code, "")
    assert stderr.endswith(last)
    assert "Traceback" not in stderr
    if number is not signal.SIGKILL:
        assert listing(tmp_path) == []
        return
    assert [name.startswith(f".lpips-export-{process.pid}-") for name in listing(out)] == [True]
    with staging(out):
        pass
    assert listing(out) == []


def test_another_process_makes_the_same_bytes_and_replaces_its_own(
    tmp_path: Path, exported: Exported, random_backbone: Callable[[str], Path]
) -> None:
    here, *_ = exported(net="alex", split=True)
    old = tmp_path / here.name
    old.write_bytes(b"half of an older one")
    manifest_path(old).write_bytes(manifest_path(here).read_bytes())
    own = ("--backbone", random_backbone("alex"), "--allow-unknown-weights", "--output-dir", tmp_path)
    with lpips_export(*own, PYTHONHASHSEED="1") as process:
        stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (0, f"{old}\n"), stderr
    assert old.read_bytes() == here.read_bytes()
    assert listing(tmp_path) == [old.name, f"{old.name}.json"]


# --- what the manifest and the metadata say


def test_the_manifest_says_what_lies_beside_it(exported: Exported, random_backbone: Callable[[str], Path]) -> None:
    for path in exported(net="alex", split=True):
        content = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        data = path.read_bytes()
        metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        model = ModelInfo.from_metadata(metadata, path)
        assert list(content) == [
            *("file", "sha256", "size", "spec", "weights", "structure", "validation", "tools", "created", "seconds")
        ]
        assert (content["file"], content["size"]) == (path.name, len(data))
        assert content["sha256"] == hashlib.sha256(data).hexdigest()
        assert content["spec"] == specification(model)
        assert content["weights"] == {
            "backbone": {
                "sha256": model.backbone_sha256,
                "source": "file",
                "origin": "alex.safetensors",
                "known": False,
            },
            "lin": {"sha256": LIN_SHA256["alex", "0.1"], "kind": "learned", "origin": "lpips 0.1.4"},
        }
        assert content["structure"] == [rule.__name__.strip("_") for rule in RULES]
        assert str(random_backbone("alex").parent) not in json.dumps(content), "paths of this machine are no one's"


def test_the_manifest_has_a_figure_for_every_case(exported: Exported) -> None:
    quantities = {"pair": {"distance", "layers", "map"}, "features": {"features"}}
    named = [case.name for case in validation_cases(BACKBONES["alex"].min_size, "float32")]
    doctored = ["dead backbone", "faint backbone"]
    for path in exported(net="alex", split=True):
        content = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        kind, validation = content["spec"]["kind"], content["validation"]
        assert validation["against"] == "lpips 0.1.4 in float64"
        assert validation["provider"] == "cpu"
        assert [case["name"] for case in validation["cases"]] == named + doctored * (kind != "compare")
        expected = quantities.get(kind, quantities["pair"])
        for case in validation["cases"]:
            assert case["errors"].keys() == expected
            assert 0 <= case["share"] <= 1
        assert validation["worst"] == {
            quantity: max(case["errors"][quantity] for case in validation["cases"]) for quantity in expected
        }


def test_the_manifest_names_the_tools_and_the_time(exported: Exported) -> None:
    content = json.loads(manifest_path(exported(net="alex", split=True)[0]).read_text(encoding="utf-8"))
    assert list(content["tools"]) == ["python", *manifest._TOOLS]
    assert content["tools"]["lpips-export"] == __version__
    assert content["tools"]["lpips"] == "0.1.4"
    assert content["tools"]["onnx"] == onnx.__version__
    assert len(content["created"]) == len("2026-01-01T00:00:00Z")
    assert content["seconds"] > 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"lin": "learned", "version": "0.1", "input": "float32", "min_size": 31, "halo": 96}),
        ({"net": "squeeze", "version": "0.0", "lin": "none", "quick": True}, {"lin": "baseline", "lin_sha256": "none"}),
        ({"input": "uint8"}, {"input": "uint8", "precision": "fp32", "target": "", "stride": 16, "eps": 1e-10}),
    ],
)
def test_the_metadata_is_complete(exported: Exported, fields: dict, expected: dict) -> None:
    paths = exported(**({"net": "alex"} | ({"split": True} if not fields else {}) | fields))
    for path, kind in zip(paths, ("pair", "features", "compare"), strict=False):
        metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert sorted(metadata) == sorted(f"lpips.{key}" for key in METADATA)
        found = ModelInfo.from_metadata(metadata, path)
        assert found.to_metadata() == metadata
        assert {key: getattr(found, key) for key in expected} == expected
        assert (found.format, found.kind) == ("1", kind)
        assert found.exporter == f"lpips-export {__version__}"
        assert found.reference == "lpips 0.1.4"
        assert "custom weights" in found.license
        assert path.stem == artifact_stem(found)


def test_the_contract_has_the_keys_of_the_design() -> None:
    assert [field.name for field in fields(ModelInfo)] == list(METADATA)


# --- names


CUSTOM = hashlib.sha256(f"{'b' * 64}{LIN_SHA256['alex', '0.1']}".encode()).hexdigest()[:8]
OWN_LIN = hashlib.sha256(f"{BACKBONES['alex'].sha256}{'c' * 64}".encode()).hexdigest()[:8]
BOTH = hashlib.sha256(f"{'b' * 64}none".encode()).hexdigest()[:8]

# Stem -> specification, kind, tensor hash of the backbone (None: torchvision's), kind of lin.
NAMES: dict[str, tuple[dict[str, str], str, str | None, str]] = {
    "lpips_alex_fp32": ({}, "pair", None, "learned"),
    "lpips_vgg_fp32": ({"net": "vgg"}, "pair", None, "learned"),
    "lpips_squeeze_fp32": ({"net": "squeeze"}, "pair", None, "learned"),
    "lpips_alex_fp32_v0.0": ({"version": "0.0"}, "pair", None, "learned"),
    "lpips_alex_fp32_baseline": ({}, "pair", None, "baseline"),
    f"lpips_alex_fp32_custom-{CUSTOM}": ({}, "pair", "b" * 64, "learned"),
    f"lpips_alex_fp32_custom-{OWN_LIN}": ({}, "pair", None, "custom"),
    "lpips_alex_fp32_uint8": ({"input": "uint8"}, "pair", None, "learned"),
    "lpips_alex_fp32_features": ({}, "features", None, "learned"),
    "lpips_alex_fp32_compare": ({}, "compare", None, "learned"),
    "lpips_alex_fp32_v0.0_uint8_compare": ({"version": "0.0", "input": "uint8"}, "compare", None, "learned"),
    f"lpips_alex_fp32_v0.0_baseline_custom-{BOTH}_uint8_features": (
        {"version": "0.0", "input": "uint8"},
        "features",
        "b" * 64,
        "baseline",
    ),
}


@pytest.mark.parametrize("stem", NAMES)
def test_the_name_says_what_departs_from_the_default_in_a_fixed_order(stem: str) -> None:
    fields, kind, sha256, lin = NAMES[stem]
    found = describe(ExportSpec(**fields), kind, *weights(fields.get("net", "alex"), sha256, lin))  # pyright: ignore[reportArgumentType]
    assert artifact_stem(found) == stem


def test_no_two_specifications_share_a_name() -> None:
    stems: dict[str, dict] = {}
    for net, version, image, kind, sha256, lin in itertools.product(
        BACKBONES,
        ("0.1", "0.0"),
        ("float32", "uint8"),
        ("pair", "features", "compare"),
        (None, "a" * 64, "b" * 64),
        ("learned", "baseline", "custom"),
    ):
        spec = ExportSpec(net=net, version=version, input=image)
        found = describe(spec, kind, *weights(net, sha256, lin))
        assert stems.setdefault(artifact_stem(found), specification(found)) == specification(found)
    assert len(stems) == 3 * 2 * 2 * 3 * 3 * 3
