"""The native lpips-score says what the Python command says, to stdout, to stderr and by its exit code."""

import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def png(path: str, *chunks: tuple[bytes, bytes], end: bool = True) -> str:
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (*chunks, *([(b"IEND", b"")] if end else [])):
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    Path(path).write_bytes(data)
    return path


def header(width: int, height: int, depth: int, colour: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def rows(values: np.ndarray) -> tuple[bytes, bytes]:
    """IDAT of rows [H, bytes]."""
    return b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))


def _kinds() -> dict[str, Callable[[np.ndarray], str]]:
    """Images of 40x36 pixels that Pillow reads as something else than the 8-bit RGB that they seem to be."""

    def saved(image: PILImage.Image, name: str, **options: Any) -> str:
        image.save(name, **options)
        return name

    def turned(pixels: np.ndarray, orientation: int, name: str) -> str:
        image = PILImage.fromarray(pixels if orientation < 5 else np.ascontiguousarray(pixels.transpose(1, 0, 2)))
        exif = PILImage.Exif()
        exif[0x0112] = orientation
        return saved(image, name, exif=exif)

    gray16 = np.arange(36 * 40, dtype=">u2").reshape(36, 40) * 45
    palette = (b"PLTE", bytes(range(48)))
    return {
        "gray": lambda p: saved(PILImage.fromarray(p[..., 0]), "x.png"),
        "one bit": lambda p: saved(PILImage.fromarray(p[..., 0]).convert("1"), "x.png"),
        "palette": lambda p: saved(PILImage.fromarray(p).quantize(200), "x.png"),
        "small palette": lambda p: saved(PILImage.fromarray(p).quantize(5), "x.png"),
        "opaque alpha": lambda p: saved(PILImage.fromarray(np.dstack([p, np.full(p.shape[:2], 255, "u1")])), "x.png"),
        "gray with opaque alpha": lambda p: saved(PILImage.fromarray(p[..., 0]).convert("LA"), "x.png"),
        "16-bit gray": lambda _: png("x.png", header(40, 36, 16, 0), rows(gray16)),
        "16-bit gray and alpha": lambda _: png(
            "x.png", header(40, 36, 16, 4), rows(np.stack([gray16, np.full_like(gray16, 65535)], -1))
        ),
        "16-bit colour": lambda _: png(
            "x.png", header(40, 36, 16, 2), rows(np.stack([gray16, gray16[::-1], gray16[:, ::-1]], -1))
        ),
        "icc": lambda p: saved(PILImage.fromarray(p), "x.png", icc_profile=b"profile"),
        "4-bit palette": lambda p: png(
            "x.png", header(40, 36, 4, 3), palette, rows(np.tile((np.arange(20) * 13 % 256).astype("u1"), (36, 1)))
        ),
        **{f"turned {n}": (lambda p, n=n: turned(p, n, "x.png")) for n in range(1, 9)},
        "exif that is none": lambda p: saved(PILImage.fromarray(p), "x.png", exif=b"Exif\0\0no exif at all"),
    }


@pytest.mark.parametrize("kind", _kinds())
def test_files_are_read_as_pillow_reads_them(kind: str, both: Callable[..., tuple[Ended, Ended]], here: Path) -> None:
    name = _kinds()[kind](np.random.default_rng(0).integers(0, 256, (36, 40, 3), dtype=np.uint8))
    save("base.png", 9, (36, 40))
    assert_same(*both("base.png", name))


def _refused() -> dict[str, Callable[[np.ndarray], str]]:
    def changed(data: bytes, at: int, name: str) -> str:
        Path(name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        return name

    def jpeg(p: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
        PILImage.fromarray(p).convert(mode).save("j.jpg", **options)
        return Path("j.jpg").read_bytes()

    def cut(data: bytes, length: int, name: str) -> str:
        Path(name).write_bytes(data[:length])
        return name

    def animated(p: np.ndarray) -> str:
        PILImage.fromarray(p).save("x.png", save_all=True, append_images=[PILImage.fromarray(p[::-1].copy())])
        return "x.png"

    def transparent(p: np.ndarray) -> str:
        PILImage.fromarray(np.dstack([p, p[..., 0]])).save("x.png")
        return "x.png"

    beyond = np.tile(np.arange(40, dtype="u1"), (36, 1))
    return {
        "a wrong checksum": lambda p: changed(Path("base.png").read_bytes(), 60, "x.png"),
        "a PNG without its end": lambda p: cut(Path("base.png").read_bytes(), -12, "x.png"),
        "half a PNG": lambda p: cut(Path("base.png").read_bytes(), 1000, "x.png"),
        "half a JPEG": lambda p: cut(jpeg(p), 1000, "x.jpg"),
        "a JPEG without its end": lambda p: cut(jpeg(p), -2, "x.jpg"),
        "CMYK": lambda p: cut(jpeg(p, "CMYK"), 10**9, "x.jpg"),
        "animation": animated,
        "transparency": transparent,
        "a pixel beyond the palette": lambda _: png("x.png", header(40, 36, 8, 3), (b"PLTE", bytes(30)), rows(beyond)),
        "a palette PNG without a palette": lambda _: png("x.png", header(40, 36, 8, 3), rows(beyond)),
        "no pixels": lambda _: png("x.png", header(40, 36, 8, 2)),
        "16-bit transparent colour": lambda _: png(
            "x.png", header(40, 36, 16, 2), (b"tRNS", bytes(6)), rows(np.zeros((36, 240), "u1"))
        ),
        "text": lambda _: cut(b"hello, I am no image", 99, "x.png"),
        "nothing": lambda _: cut(b"", 0, "x.png"),
    }


@pytest.mark.parametrize("kind", _refused())
def test_files_that_python_refuses_are_refused(kind: str, both: Callable[..., tuple[Ended, Ended]], here: Path) -> None:
    save("base.png", 9, (36, 40))
    name = _refused()[kind](np.random.default_rng(0).integers(0, 256, (36, 40, 3), dtype=np.uint8))
    (code, out, err), (expected, other, _) = both("base.png", name)
    assert (code, out) == (expected, other) == (3, "")
    assert err.startswith(f"error: base.png, {name}: {name}: ")
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
