"""The native lpips-score says what the Python command says, to stdout, to stderr and by its exit code."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_kinds
import native
import numpy as np
import onnx_files
import pytest
from PIL import Image as PILImage
from score_command import command, save

Models = Callable[[str], Path]
Ended = tuple[int, str, str]

# A number with a point or an exponent, of a distance or a mean.
_NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e-\d+)?(?![\w.])|(?<![\w.])\d+e-\d+")


@pytest.fixture(scope="module")
def program() -> Path:
    return native.build("gcc") / "lpips-score"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Models) -> Path:
    """A folder with images and a model that calls itself plain; its siblings are not there."""
    monkeypatch.chdir(tmp_path)
    onnx_files.plain(models("alex"), tmp_path / "plain.onnx")
    monkeypatch.setenv("LPIPS_MODEL", str(tmp_path / "plain.onnx"))
    for seed, name in enumerate("abc"):
        save(f"{name}.png", seed)
    save("turned.png", 3, (36, 40))
    save("small.png", 4, (20, 20))
    return tmp_path


@pytest.fixture
def both(program: Path, here: Path) -> Callable[..., tuple[Ended, Ended]]:
    """Arguments -> what the native program and the Python command did."""

    def call(*arguments: str) -> tuple[Ended, Ended]:
        environment = os.environ | {"LPIPS_ONNXRUNTIME": str(native.library())}
        ended = subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, env=environment, check=False, timeout=60
        )
        python = command(*arguments)
        return (ended.returncode, ended.stdout, ended.stderr), (python.returncode, python.stdout, python.stderr)

    return call


def assert_same(found: Ended, expected: Ended) -> None:
    """Equal but for numbers, which are within 1e-6."""
    assert found[0] == expected[0], found
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert _NUMBER.sub("#", one) == _NUMBER.sub("#", other)
        numbers = [list(map(float, _NUMBER.findall(text))) for text in (one, other)]
        np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.png", "b.png"),
        ("a.png", "a.png"),
        ("a.png", "b.png", "--layers"),
        ("a.png", "b.png", "c.png"),
        ("a.png", "--layers", "b.png", "c.png", "a.png"),
        ("a.png", "b.png", "gone.png", "c.png"),
        ("a.png", "gone.png"),
        ("gone.png", "a.png"),
        ("gone.png", "a.png", "b.png"),
        ("a.png", "turned.png"),
        ("a.png", "turned.png", "b.png"),
        ("a.png", "b.png", "--fail-above", "1e-9"),
        ("a.png", "b.png", "--fail-above=100"),
        ("a.png", "b.png", "--fail-above", " 1_0 "),
        ("a.png", "b.png", "-m=plain.onnx"),
        ("a.png", "b.png", "-mplain.onnx"),
        ("a.png", "b.png", "c.png", "--fail-above", "1e-9"),
        ("a.png", "gone.png", "b.png", "--fail-above", "1e-9"),
        ("--", "a.png", "b.png"),
        ("a.png", "/dev/null"),
        ("a.png",),
    ],
    ids=" ".join,
)
def test_same_words_numbers_and_exit_code(arguments: tuple[str, ...], both: Callable[..., tuple[Ended, Ended]]) -> None:
    assert_same(*both(*arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a.png", "b.png", "--threads", "0"),
        ("a.png", "b.png", "--threads", "x"),
        ("a.png", "b.png", "--fail-above", "-1"),
        ("a.png", "b.png", "--fail-above", "nan"),
        ("a.png", "b.png", "--fail-above", "0x1"),
        ("a.png", "b.png", "--fail-above", ""),
        ("a.png", "b.png", "-m", ""),
        ("a.png", "b.png", "-m="),
        ("a.png", "b.png", "--model="),
        ("a.png", "b.png", "--provider", "nonsense"),
        ("a.png", "b.png", "-m", "nowhere.onnx"),
        ("a.png", "b.png", "-m", "vgg-fp16"),
        ("a.png", "b.png", "--no-such-option"),
        ("a.png", "b.png", "-m"),
        ("small.png", "small.png"),
        ("a.png", "b.png", "-m", "a.png"),
        ("a.png", "."),
        (".", "a.png", "b.png"),
    ],
    ids=" ".join,
)
def test_same_exit_code_and_one_line(arguments: tuple[str, ...], both: Callable[..., tuple[Ended, Ended]]) -> None:
    (code, out, err), (expected, _, _) = both(*arguments)
    assert (code, out) == (expected, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_names_that_a_terminal_would_obey(both: Callable[..., tuple[Ended, Ended]], here: Path) -> None:
    names = ["línea\nnueva.png", "tab\t.png", "esc\x1b[31m.png", "sep\u2028.png"]
    for name in names:
        shutil.copy("b.png", name)
    assert_same(*both("a.png", *names, "gone\n.png"))


def test_a_model_that_is_not_plain_or_slow_is_said(
    both: Callable[..., tuple[Ended, Ended]], models: Models, exported: Callable[..., list[Path]]
) -> None:
    for model in (models("squeeze_baseline"), exported(net="alex", precision="fp16", split=True, quick=True)[0]):
        assert_same(*both("a.png", "b.png", "-m", str(model)))


def test_one_against_many_with_siblings(both: Callable[..., tuple[Ended, Ended]], models: Models) -> None:
    found, expected = both("a.png", "b.png", "c.png", "turned.png", "-m", str(models("alex")))
    assert_same(found, expected)


def test_bad_siblings_are_said_and_not_used(
    both: Callable[..., tuple[Ended, Ended]], models: Models, here: Path
) -> None:
    """Missing ones, those of another net and damaged ones; with so many pairs that it is worth a word."""
    names = ["b.png", "c.png", *(f"{number}.png" for number in range(16))]
    for seed, name in enumerate(names[2:], 5):
        save(name, seed)

    def check(why: str) -> None:
        for some in (names[:2], names):
            found, expected = both("a.png", *some)
            told = [err.splitlines() for _, _, err in (found, expected)]
            assert_same((*found[:2], told[0].pop()), (*expected[:2], told[1].pop()))
            assert found[0] == 0
            if some is not names:
                assert told == [[], []]
                continue
            # Python counts pairs by the batch.
            (one,), (other,) = told
            assert one.startswith(f"note: a.png, {names[16]} and 1 other pair: an image that was compared before")
            assert why in one
            assert why in other

    check("with the graphs that lpips-export --split writes beside the model each image is encoded once")
    for kind in ("features", "compare"):
        shutil.copy(models(f"squeeze_{kind}"), f"plain_{kind}.onnx")
    check("plain_features.onnx: does not belong to plain.onnx, its net is squeeze, not alex")
    for kind in ("features", "compare"):
        Path(f"plain_{kind}.onnx").write_bytes(models(f"alex_{kind}").read_bytes()[:-100])
    check("because")


@pytest.mark.parametrize(
    "kind", ["16-bit gray", "16-bit colour", "icc", "exif that is none", "turned 6", "opaque alpha", "small palette"]
)
def test_notes_on_files(kind: str, both: Callable[..., tuple[Ended, Ended]], here: Path) -> None:
    """What is read of files is in test_image_files.py."""
    Path("x.png").write_bytes(image_kinds.read_exactly()[kind]())
    save("base.png", 9, (36, 40))
    assert_same(*both("base.png", "x.png"))


@pytest.mark.parametrize("kind", ["a wrong checksum", "half a JPEG", "CMYK", "animation", "transparency", "nothing"])
def test_files_that_are_refused(kind: str, both: Callable[..., tuple[Ended, Ended]], here: Path) -> None:
    save("base.png", 9, (36, 40))
    Path("x.png").write_bytes(image_kinds.refused()[kind]())
    (code, out, err), (expected, other, _) = both("base.png", "x.png")
    assert (code, out) == (expected, other) == (3, "")
    assert err.startswith("error: base.png, x.png: x.png: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 60, "subsampling": 2}, {"progressive": True}, {}])
def test_jpegs_are_decoded_nearly_as_by_pillow(
    options: dict[str, Any], both: Callable[..., tuple[Ended, Ended]], here: Path
) -> None:
    """stb's inverse transform and its upsampling of colour round in other ways: a pixel may differ by a few levels."""
    y, x = np.mgrid[0:96, 0:128]
    smooth = np.stack([x * 2, y * 2, 128 + 100 * np.sin(x / 9) * np.cos(y / 7)], -1).clip(0, 255).astype(np.uint8)
    PILImage.fromarray(smooth).save("s.png")
    PILImage.fromarray(smooth).save("s.jpg", **options)
    (code, out, err), (_, expected, _) = both("s.png", "s.jpg")
    assert (code, err) == (0, "")
    assert float(out) == pytest.approx(float(expected), rel=0.1, abs=2e-4)


def test_timing_says_where_the_time_goes(both: Callable[..., tuple[Ended, Ended]], program: Path, here: Path) -> None:
    ended = native.run(program, here / "a.png", here / "b.png", "--timing", LPIPS_MODEL=str(here / "plain.onnx"))
    assert ended.returncode == 0
    assert re.search(
        r"timing: [\d.]+ ms from start to number: load ONNX Runtime [\d.]+, open the model [\d.]+, score [\d.]+\n",
        ended.stderr,
    )
