"""`make demo`: export AlexNet, prove it, score a photograph against distorted versions of it.

What it makes: artifacts/lpips_alex_fp32.onnx and, in demo/, the images and their heatmaps.
"""

import io
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

ARTIFACTS = Path("artifacts")
FOLDER = Path("demo")


def blurred(photo: Image.Image, radius: float) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(radius))


def compressed(photo: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def noisy(photo: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (photo.height, photo.width, 3))
    return Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))


DISTORTIONS = {
    "blur_1px": (blurred, 1),
    "blur_3px": (blurred, 3),
    "jpeg_quality_50": (compressed, 50),
    "jpeg_quality_10": (compressed, 10),
    "noise_8": (noisy, 8),
    "noise_32": (noisy, 32),
}


def run(*command: str) -> None:
    print(f"$ {shlex.join(command)}", flush=True)
    program = Path(sys.executable).with_name(command[0])
    code = subprocess.run([program, *command[1:]], check=False).returncode
    if code:
        sys.exit(code)
    print(flush=True)


def main() -> None:
    print("1. Export LPIPS (AlexNet) to one ONNX file, proven against the PyTorch reference.\n", flush=True)
    run("lpips-export", "--net", "alex", "--output-dir", str(ARTIFACTS))

    print("2. Distort scikit-learn's photograph china.jpg: blur, JPEG, noise.\n")
    FOLDER.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(files("sklearn.datasets.images").joinpath("china.jpg").read_bytes())) as image:
        photo = image.convert("RGB")
    original = FOLDER / "china.png"
    photo.info.clear()  # its colour profile, which the scores would only be noted to ignore
    photo.save(original)
    distorted = []
    for name, (distort, amount) in DISTORTIONS.items():
        distorted.append(FOLDER / f"{name}.png")
        distort(photo, amount).save(distorted[-1])

    print("3. Score each version against the photograph, with the runtime, which knows no PyTorch.\n")
    model = ("-m", str(ARTIFACTS / "lpips_alex_fp32.onnx"))
    pair = (str(original), *map(str, distorted))
    heatmaps = FOLDER / "heatmaps"
    run("lpips-score", *model, *pair, "--heatmap", str(heatmaps))
    print(f"Larger is more different to a person. Where each version differs is drawn in {heatmaps}/.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
