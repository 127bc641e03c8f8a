"""lpips-score --list-providers."""

import json
from dataclasses import replace

import pytest
from score_command import Run

from lpips_runtime import listing
from lpips_runtime.cli import main
from lpips_runtime.errors import ProviderError
from lpips_runtime.providers import PROVIDERS, Device

CPU = PROVIDERS["cpu"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_every_provider_is_listed_with_what_it_needs(run: Run) -> None:
    code, out, err = run("--list-providers")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["provider", "runs", "device"]
    assert {line.split()[0] for line in lines[1:]} == {*PROVIDERS, "tensorrt"}
    (taken,) = (line for line in lines if line.endswith("<- auto"))
    assert taken.split()[0] in ("cpu", "cuda")


def test_as_json(run: Run) -> None:
    code, out, err = run("--list-providers", "--format", "json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["providers"]
    (cpu,) = (row for row in rows if row["provider"] == "cpu")
    assert (cpu["works"], cpu["why"], cpu["files"]) == (True, None, ".onnx")
    assert cpu["devices"] == [{"number": 0, "name": CPU.devices()[0].name, "faster": ""}]
    assert all(row["why"] for row in rows if not row["works"])
    assert sum(row["auto"] for row in rows) == 1


def test_what_auto_takes_with_and_without_fast_math(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(fast_math: bool, faster: str) -> list[str]:
        row = replace(CPU, name="openvino", auto="fast-math", devices=lambda: [Device(0, "A CPU", faster)])
        monkeypatch.setitem(PROVIDERS, "openvino", row)
        return [row["provider"] for row in listing.survey(fast_math=fast_math) if row["auto"]]

    monkeypatch.setitem(PROVIDERS, "cuda", replace(CPU, name="cuda", ort_name="NoSuchProvider"))
    assert taken(False, "bfloat16") == ["cpu"]
    assert taken(True, "bfloat16") == ["openvino"]
    assert taken(True, "") == ["cpu"]


def test_a_provider_that_is_there_and_does_not_work_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Device]:
        raise ProviderError("the plugin cannot be loaded: libx.so is missing")

    monkeypatch.setitem(PROVIDERS, "cuda", replace(CPU, name="cuda", devices=broken))
    text = listing.describe("text")
    assert "does not start: the plugin cannot be loaded: libx.so is missing" in text
    assert [row["provider"] for row in listing.survey() if row["auto"]] == ["cpu"]
    monkeypatch.setitem(PROVIDERS, "cuda", replace(CPU, name="cuda", ort_name="NoSuchProvider"))
    assert "not installed: " in listing.describe("text")


def test_without_onnx_runtime_nothing_is_installed_and_the_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ProviderError("no ONNX Runtime is installed")

    monkeypatch.setattr("lpips_runtime.providers.onnxruntime", missing)
    lines = listing.describe("text").splitlines()
    assert any(line.startswith("cpu") and line.endswith("pip install 'lpips-runtime[cpu]'") for line in lines)
    assert not any("<- auto" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.png", "b.png", "--list-providers"), "--list-providers scores nothing; leave out REF DIST"),
        (("--info", "--list-providers"), "--info scores nothing; leave out --list-providers"),
        (("--list-providers", "--format", "csv"), "--list-providers prints text or json"),
    ],
)
def test_it_scores_nothing(arguments: tuple[str, ...], said: str, run: Run) -> None:
    assert run(*arguments) == (2, "", f"error: {said}\n")
