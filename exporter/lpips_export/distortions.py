"""What is done to photographs so that calibration and its judgement see what the metric will see.

DISTORTIONS make the second image of a pair. VARIANTS are other photographs made of one: brighter, darker, of other
colours; a folder of a few dozen never holds what some user's images do, and an activation beyond the calibrated range
is cut off. All take and give a Pillow image in RGB, of the same size; the generator decides what is random.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

__all__ = ["DISTORTIONS", "VARIANTS", "Change", "blur", "enhanced", "jpeg", "noise", "rescaled"]

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def blur(radius: float) -> Change:
    return lambda image, rng: image.filter(ImageFilter.GaussianBlur(radius))


def jpeg(quality: int) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def noise(deviation: float) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        pixels = np.asarray(image) + deviation * rng.standard_normal((image.height, image.width, 3))
        return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))

    return change


def enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance], factor: float) -> Change:
    return lambda image, rng: kind(image).enhance(factor)


def rescaled(factor: float) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        small = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return change


def _moved(x: float, y: float) -> Change:
    # The border repeats what lay there, so that no black edge outweighs the shift.
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        grown = Image.fromarray(np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)), mode="edge"))
        moved = grown.transform(grown.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), Image.Resampling.BICUBIC)
        return moved.crop((4, 4, 4 + image.width, 4 + image.height))

    return change


def _rotated(degrees: float) -> Change:
    return lambda image, rng: image.rotate(degrees, Image.Resampling.BICUBIC)


def _channels(order: str) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        return Image.merge("RGB", [image.getchannel(channel) for channel in order])

    return change


def _negative(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.invert(image)


# Of graded strength, most of them weak: weak ones are where rounding to 8 bits shows.
DISTORTIONS: Mapping[str, Change] = {
    "blur 0.7": blur(0.7),
    "blur 1.5": blur(1.5),
    "jpeg 75": jpeg(75),
    "jpeg 40": jpeg(40),
    "jpeg 15": jpeg(15),
    "noise 3": noise(3),
    "noise 10": noise(10),
    "contrast 0.85": enhanced(ImageEnhance.Contrast, 0.85),
    "contrast 1.25": enhanced(ImageEnhance.Contrast, 1.25),
    "half size": rescaled(0.5),
    "shift 1.5 px": _moved(1.5, 0.75),
    "rotation 1 degree": _rotated(1),
}

VARIANTS: Mapping[str, Change] = {
    "as it is": lambda image, rng: image,
    "negative": _negative,
    "channels GBR": _channels("GBR"),
    "channels BRG": _channels("BRG"),
    "saturation 2": enhanced(ImageEnhance.Color, 2),
    "contrast 1.6": enhanced(ImageEnhance.Contrast, 1.6),
    "brightness 0.5": enhanced(ImageEnhance.Brightness, 0.5),
}
