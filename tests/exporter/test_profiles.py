"""Which engines can be asked for, and with which shapes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpips_export.backbones import BACKBONES
from lpips_export.errors import SpecError
from lpips_export.profiles import EngineSpec
from lpips_runtime.plan import Profile, Shape


def engine(**fields: Any) -> EngineSpec:
    return EngineSpec(**fields)


@pytest.mark.parametrize(
    ("given_shapes", "profile"),
    [
        ({}, Profile((1, 31, 31), (1, 256, 256), (4, 1024, 1024))),
        ({"min": (1, 64, 64)}, Profile((1, 64, 64), (1, 256, 256), (4, 1024, 1024))),
        ({"min": (2, 512, 64)}, Profile((2, 512, 64), (2, 512, 256), (4, 1024, 1024))),
        ({"min": (1, 2000, 64)}, Profile((1, 2000, 64), (1, 2000, 256), (4, 2000, 1024))),
        ({"opt": (8, 256, 256)}, Profile((1, 31, 31), (8, 256, 256), (8, 1024, 1024))),
        ({"max": (1, 2160, 3840)}, Profile((1, 31, 31), (1, 256, 256), (1, 2160, 3840))),
        ({"max": (2, 64, 128)}, Profile((1, 31, 31), (1, 64, 128), (2, 64, 128))),
        (
            {"min": (1, 64, 64), "opt": (2, 64, 64), "max": (2, 65, 66)},
            Profile((1, 64, 64), (2, 64, 64), (2, 65, 66)),
        ),
    ],
)
def test_what_is_not_given_fits_what_is(given_shapes: dict[str, Shape], profile: Profile) -> None:
    spec = engine(**{name: (shape,) for name, shape in given_shapes.items()})
    assert spec.profiles("alex", 31) == (profile,)


sides = st.integers(31, 5000)
shapes = st.tuples(st.integers(1, 64), sides, sides)


@given(shapes, shapes, shapes, st.sets(st.sampled_from(["min", "opt", "max"])))
def test_a_profile_is_always_in_order(one: Shape, two: Shape, three: Shape, names: set[str]) -> None:
    ordered = [tuple(sorted(values)) for values in zip(one, two, three, strict=True)]
    every: dict[str, Shape] = {
        name: (ordered[0][k], ordered[1][k], ordered[2][k]) for k, name in enumerate(("min", "opt", "max"))
    }
    (profile,) = engine(**{name: (every[name],) for name in names}).profiles("alex", 31)
    for low, opt, high in zip(profile.min, profile.opt, profile.max, strict=True):
        assert low <= opt <= high
    for name in names:
        assert getattr(profile, name) == every[name]


def test_several_profiles_keep_their_order() -> None:
    spec = EngineSpec(opt=((1, 64, 64), (4, 128, 128)), max=((8, 64, 64), (8, 256, 256)))
    assert spec.profiles("vgg", 16) == (
        Profile((1, 16, 16), (1, 64, 64), (8, 64, 64)),
        Profile((1, 16, 16), (4, 128, 128), (8, 256, 256)),
    )


@pytest.mark.parametrize(
    ("given_shapes", "message"),
    [
        (
            {"min": [(8, 256, 256)], "opt": [(4, 256, 256)]},
            "--min 8x256x256 is above --opt 4x256x256 in pairs (8 > 4); lower the one or raise the other",
        ),
        (
            {"min": [(1, 64, 512)], "max": [(1, 512, 64)]},
            "--min 1x64x512 is above --max 1x512x64 in width (512 > 64); lower the one or raise the other",
        ),
        (
            {"opt": [(1, 64, 64), (1, 512, 64)], "max": [(1, 64, 64), (1, 256, 64)]},
            "--opt 1x512x64 is above --max 1x256x64 in height (512 > 256); lower the one or raise the other",
        ),
        ({"max": [(0, 64, 64)]}, "--max 0x64x64: a batch holds at least one pair; give 1x... or more"),
        (
            {"min": [(1, 64, 64)], "max": [(4, 64, 64), (4, 128, 128)]},
            "different numbers of shapes (--min 1, --max 2); give each option once per profile, in order",
        ),
    ],
)
def test_shapes_that_no_profile_can_have_are_a_wrong_call(given_shapes: dict[str, list[Shape]], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        engine(**{name: tuple(shapes) for name, shapes in given_shapes.items()})
    assert str(caught.value) == message


@pytest.mark.parametrize("net", BACKBONES)
def test_a_side_below_the_nets_smallest_is_a_wrong_call(net: str) -> None:
    smallest = BACKBONES[net].min_size
    EngineSpec(min=((1, smallest, smallest),)).profiles(net, smallest)
    with pytest.raises(SpecError) as caught:
        EngineSpec(min=((2, smallest - 1, 64),)).profiles(net, smallest)
    assert str(caught.value) == (
        f"--min 2x{smallest - 1}x64: {net} takes no side below {smallest} pixels; give at least 2x{smallest}x64"
    )
    with pytest.raises(SpecError, match="--max 1x64x0: "):
        EngineSpec(max=((1, 64, 0),)).profiles(net, smallest)
