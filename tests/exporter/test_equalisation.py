"""Channels of equal range: the same numbers as before, and less that eight bits would lose."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from int8_graph import Int8Net, as_float, photo_batch
from torch import Tensor, nn

from lpips_export import equalisation
from lpips_export.backbones import BACKBONES
from lpips_export.equalisation import convolution_names, convolutions, equalised, image_range, stages
from lpips_export.metric import Encoder

Int8Nets = Callable[[str], Int8Net]


@pytest.fixture(params=BACKBONES)
def net(request: pytest.FixtureRequest, int8_net: Int8Nets) -> Int8Net:
    return int8_net(request.param)


def unseen() -> Tensor:
    """Photographs that the equalisation did not see, of another size, upside down."""
    return torch.from_numpy(as_float(np.ascontiguousarray(photo_batch(75)[:6, ::-1])))


def written(encoder: Encoder, images: Tensor) -> dict[nn.Conv2d, Tensor]:
    """What each convolution writes, behind the ReLU: [N, C, h, w]."""
    found: dict[nn.Conv2d, Tensor] = {}

    def look(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        found[module] = output.clamp_min(0).clone()

    handles = [module.register_forward_hook(look) for module in convolutions(encoder)]
    with torch.no_grad():
        encoder(images)
    for handle in handles:
        handle.remove()
    return found


def spread(values: Tensor) -> float:
    """How unlike the ranges of channels are: the mean of log2(largest range / range) over the live ones."""
    ranges = values.transpose(0, 1).flatten(1).quantile(0.999, dim=1)
    live = ranges[ranges > 1e-3 * ranges.max()]
    return float((live.max() / live).log2().mean())


# --- the same numbers


def test_the_equalised_encoder_gives_the_numbers_of_the_original(net: Int8Net) -> None:
    before = copy.deepcopy(net.encoder.state_dict())
    with torch.no_grad():
        ours, theirs = net.equalised(unseen()), net.encoder(unseen())
    for our, their in zip(ours, theirs, strict=True):
        # Unit-length features: elements are of the size of 1 / sqrt(channels), errors of float32's rounding.
        assert (our - their).abs().max() < 2e-6
        assert (our - their).norm() < 1e-5 * their.norm()
    assert all(torch.equal(before[name], value) for name, value in net.encoder.state_dict().items()), "it is a copy"


def test_it_is_not_the_encoder_as_it_was(net: Int8Net) -> None:
    """What would keep the numbers too, and prove nothing."""
    pairs = zip(convolutions(net.encoder), convolutions(net.equalised), strict=True)
    assert not any(torch.equal(one.weight, other.weight) for one, other in pairs)


@pytest.mark.parametrize("version", ["0.1", "0.0"])
def test_each_version_and_input_is_equalised_alike(version: str, int8_net: Int8Nets) -> None:
    state, images = int8_net("alex").backbone.state, photo_batch(75)
    results = []
    for image_input in ("float32", "uint8"):
        encoder = Encoder(BACKBONES["alex"], state, version=version, image_input=image_input)
        given = torch.from_numpy(images if image_input == "uint8" else as_float(images))
        ours, ranges = equalised(encoder, given)
        with torch.no_grad():
            for our, their in zip(ours(given), encoder(given), strict=True):
                assert (our - their).abs().max() < 2e-6
        results.append(np.array(ranges))
    assert np.allclose(*results, rtol=1e-4)


def test_a_range_ends_where_the_scaled_image_ends(int8_net: Int8Nets) -> None:
    encoder = int8_net("alex").encoder
    ends = [encoder_scaled(encoder, torch.full((1, 3, 1, 1), value)) for value in (-1.0, 1.0)]
    assert image_range(encoder) == (pytest.approx(float(ends[0].min())), pytest.approx(float(ends[1].max())))
    plain = Encoder(BACKBONES["alex"], int8_net("alex").backbone.state, version="0.0", image_input="float32")
    assert image_range(plain) == (-1, 1)


def encoder_scaled(encoder: Encoder, image: Tensor) -> Tensor:
    return (image - encoder.shift) / encoder.scale


# --- who writes and who reads


def test_every_convolution_writes_one_stage_and_every_tap_is_of_one(net: Int8Net) -> None:
    every, found = convolutions(net.encoder), stages(net.encoder)
    assert [conv for stage in found for conv in stage.writers] == every, "each once, in the order in which they run"
    assert [conv for stage in found for conv in stage.readers] == every[1:], "each but the first, which reads the image"
    taps = [stage.tap for stage in found if stage.tap is not None]
    channels = BACKBONES[net.net].channels
    assert taps == list(range(len(channels)))
    for stage in found:
        width = sum(conv.out_channels for conv in stage.writers)
        assert all(conv.in_channels == width for conv in stage.readers)
        if stage.tap is not None:
            assert width == channels[stage.tap]
        else:
            assert stage.readers, "written for nobody"
    assert not found[-1].readers


def test_names_are_those_of_the_convolutions(net: Int8Net) -> None:
    names = convolution_names(net.encoder)
    assert [net.encoder.slices.get_submodule(name) for name in names] == convolutions(net.encoder)
    torchvisions = dict(BACKBONES[net.net].features().named_modules())
    for name, conv in zip(names, convolutions(net.encoder), strict=True):
        original = torchvisions[name.split(".", 1)[1]]
        assert isinstance(original, nn.Conv2d)
        assert original.weight.shape == conv.weight.shape


def test_convolutions_run_in_the_order_in_which_they_are_listed(net: Int8Net) -> None:
    assert list(written(net.encoder, unseen()[:1])) == convolutions(net.encoder)


# --- ranges


def test_ranges_hold_what_the_convolutions_read_and_write(net: Int8Net) -> None:
    """All but a share of some ten-thousandths, so that the share cut off is small, and no more than is there."""
    read: dict[nn.Conv2d, Tensor] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        read[module] = inputs[0].clone()

    handles = [conv.register_forward_pre_hook(look) for conv in convolutions(net.equalised)]
    writes = written(net.equalised, net.images)
    for handle in handles:
        handle.remove()
    for number, (conv, (of_input, of_output)) in enumerate(zip(convolutions(net.equalised), net.ranges, strict=True)):
        values = writes[conv].numpy()
        assert of_output[0] == 0
        assert of_output[1] >= np.quantile(values, 0.999)
        values = read[conv].numpy()
        if number == 0:
            assert of_input[0] <= values.min() <= values.max() <= of_input[1]
        else:
            assert of_input[0] == 0
            assert np.quantile(values, 0.99) <= of_input[1] <= 1.5 * values.max()


def test_what_is_written_to_one_tensor_has_one_range(net: Int8Net) -> None:
    """SqueezeNet joins what two convolutions write, and the readers read it with the scale it was written with."""
    number = {conv: at for at, conv in enumerate(convolutions(net.encoder))}
    for stage in stages(net.encoder):
        ranges = {net.ranges[number[conv]][1] for conv in stage.writers}
        ranges |= {net.ranges[number[conv]][0] for conv in stage.readers}
        assert len(ranges) == 1


def test_channels_come_nearer_to_one_another(net: Int8Net) -> None:
    before, after = written(net.encoder, net.images), written(net.equalised, net.images)
    pairs = zip(stages(net.encoder), stages(net.equalised), strict=True)
    ratios = []
    for plain, equal in pairs:
        was = spread(torch.cat([before[conv] for conv in plain.writers], 1))
        ratios.append(spread(torch.cat([after[conv] for conv in equal.writers], 1)) / was)
    assert max(ratios) < 0.95, "in no tensor"
    # An exponent of 0.75 leaves a quarter of the logarithm, and more where _MOST is what limits.
    assert np.mean(ratios) < 0.5


def test_no_channel_is_scaled_down_nor_beyond_the_bound() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal((6, 4000))) * np.array([[1e-9, 1e-3, 0.1, 1, 10, 0]]).T
    scale = equalisation._scales(values.astype(np.float32))
    assert scale.dtype == np.float32
    assert scale.min() == 1
    assert scale.max() == equalisation._MOST
    assert list(scale[:5]) == sorted(scale[:5], reverse=True)
    assert scale[4] == 1, "the largest stays as it is"
    assert scale[3] == pytest.approx(10**equalisation._EXPONENT, rel=0.1)


# --- what is dead


def test_a_backbone_that_is_dead_throughout_survives(int8_net: Int8Nets) -> None:
    encoder = copy.deepcopy(int8_net("squeeze").encoder)
    for conv in convolutions(encoder):
        assert conv.bias is not None
        conv.bias.data.fill_(-1e6)
    ours, ranges = equalised(encoder, unseen())
    assert all(of_output == (0, 1) for _, of_output in ranges), "a scale of 0 is none"
    with torch.no_grad():
        assert all((tap == 0).all() for tap in ours(unseen()))


def test_dead_channels_keep_the_others_numbers(int8_net: Int8Nets) -> None:
    encoder = copy.deepcopy(int8_net("alex").encoder)
    for conv in convolutions(encoder):
        assert conv.bias is not None
        conv.bias.data[::3] = -1e4
    ours, ranges = equalised(encoder, unseen())
    with torch.no_grad():
        for our, their in zip(ours(unseen()), encoder(unseen()), strict=True):
            assert torch.isfinite(our).all()
            assert (our[:, ::3] == 0).all()
            assert (our - their).abs().max() < 2e-6
    assert np.isfinite(np.array(ranges)).all()


def test_the_same_images_give_the_same_equalisation(int8_net: Int8Nets) -> None:
    net = int8_net("alex")
    torch.manual_seed(99)  # of no influence
    again, ranges = equalised(net.encoder, net.images)
    assert ranges == net.ranges
    for one, other in zip(convolutions(net.equalised), convolutions(again), strict=True):
        assert torch.equal(one.weight, other.weight)
