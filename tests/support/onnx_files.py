"""ONNX files made and changed byte by byte, for the tests of what opens them; the onnx package is not needed.

Field numbers are those of onnx.proto.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lpips_runtime.contract import BACKBONE_SHA256, UNSEALED, ModelInfo, seal

FLOAT, UINT8, INT64 = 1, 2, 7  # TensorProto.DataType
_GRAPH, _METADATA = 7, 14  # of ModelProto


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field's content."""

    def read(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value, at

    at, end = start, len(data) if end is None else end
    while at < end:
        tag, at = read(at)
        if tag & 7 == 2:
            length, at = read(at)
        else:
            length = {0: read(at)[1] - at, 1: 8, 5: 4}[tag & 7]
        yield tag >> 3, at, at + length
        at += length


def metadata(data: bytes) -> dict[str, str]:
    found = {}
    for number, start, end in fields(data):
        if number == _METADATA:
            key, value = (data[a:b].decode() for _, a, b in fields(data, start, end))
            found[key] = value
    return found


def with_metadata(data: bytes, entries: dict[str, str]) -> bytes:
    """The model with these metadata_props and no others; sealed, where they have the place for it."""
    kept = b"".join(message((number, data[start:end])) for number, start, end in fields(data) if number == _GRAPH)
    # Scalars, the opset among them, are few and small, but message() would need their kind: they are cut out whole.
    at, rest = 0, b""
    for number, _, end in fields(data):
        if number not in (_GRAPH, _METADATA):
            rest += data[at:end]
        at = end
    made = rest + kept + message(*((_METADATA, message((1, key), (2, value))) for key, value in entries.items()))
    return seal(made) if entries.get("lpips.content_sha256") == UNSEALED else made


def relabelled(model: Path, to: Path, /, **changes: str | None) -> Path:
    """A copy of a model, without a manifest, whose lpips.* metadata says something else; None leaves a key out."""
    data = model.read_bytes()
    changes = {"content_sha256": UNSEALED, **changes}
    entries: dict[str, str | None] = {**metadata(data), **{f"lpips.{key}": value for key, value in changes.items()}}
    to.write_bytes(with_metadata(data, {key: value for key, value in entries.items() if value is not None}))
    return to


def plain(model: Path, target: Path) -> Path:
    """A copy that calls itself plain LPIPS v0.1, whatever its weights are."""
    net = metadata(model.read_bytes())["lpips.net"]
    return relabelled(model, target, version="0.1", lin="learned", backbone_sha256=BACKBONE_SHA256[net])


def structural_bytes(data: bytes) -> list[int]:
    """Offsets of all bytes but those of the weights (raw_data of initializers, of which each keeps its first few)."""
    found, at = [], 0
    for number, start, end in fields(data):
        if number != _GRAPH:
            continue
        for inner, a, b in fields(data, start, end):
            if inner == 5:  # initializer
                for part, first, last in fields(data, a, b):
                    if part == 9 and last - first > 64:  # raw_data
                        found += range(at, first + 32)
                        at = last
    return [*found, *range(at, len(data))]


# Graphs of our own. Opset 11: the axes of a reduction are still attributes, so that no initializer is needed.


def tensor(name: str, kind: int, *sides: str) -> bytes:
    shape = message(*((1, message((2, side))) for side in sides))
    return message((1, name), (2, message((1, message((1, kind), (2, shape))))))


def node(operator: str, inputs: str, output: str, **attributes: int | list[int]) -> bytes:
    parts: list[tuple[int, int | str | bytes]] = [*((1, name) for name in inputs.split()), (2, output), (4, operator)]
    for name, value in attributes.items():
        if isinstance(value, int):
            parts.append((5, message((1, name), (3, value), (20, 2))))
        else:
            parts.append((5, message((1, name), *((8, number) for number in value), (20, 7))))
    return message(*parts)


def model(inputs: list[bytes], outputs: list[bytes], nodes: list[bytes], entries: dict[str, str]) -> bytes:
    graph = message(
        *((1, part) for part in nodes), (2, "g"), *((11, part) for part in inputs), *((12, p) for p in outputs)
    )
    data = message((1, 6), (8, message((1, ""), (2, 11))), (_GRAPH, graph))
    return with_metadata(data, entries)


INFO = ModelInfo(
    format="1",
    kind="pair",
    net="vgg",
    version="0.1",
    lin="learned",
    precision="fp32",
    target="",
    input="float32",
    min_size=16,
    stride=16,
    halo=96,
    eps=1e-10,
    backbone_sha256=BACKBONE_SHA256["vgg"],
    lin_sha256="1" * 64,
    exporter="a test",
    reference="none",
    license="none",
)


def foreign() -> bytes:
    """A model of somebody else's."""
    side = tensor("x", FLOAT, "batch", "features")
    return model([side], [tensor("y", FLOAT, "batch", "features")], [node("Identity", "x", "y")], {})


def squared_difference(made: dict[str, list[bytes]] | None = None, depths: int = 5, **info: str | int) -> bytes:
    """A graph of the pair contract whose depths all are the squared difference.

    made: output -> nodes that make it, of `d`, the distance at each depth [batch], or `map` [batch,height,width];
    info: what the metadata says instead of INFO.
    """
    image = ("batch", "3", "height", "width")
    names = [f"depth_{k}" for k in range(depths)]
    outputs = {
        "distance": [node("ReduceSum", "shares", "distance", axes=[1], keepdims=0)],
        "layers": [node("Identity", "shares", "layers")],
        **{name: [node("Identity", "map", name)] for name in names},
    } | (made or {})
    nodes = [
        node("Sub", "reference distorted", "difference"),
        node("Mul", "difference difference", "squares"),
        node("ReduceMean", "squares", "map", axes=[1], keepdims=0),
        node("ReduceMean", "squares", "d", axes=[1, 2, 3], keepdims=0),
        node("Unsqueeze", "d", "share", axes=[1]),
        node("Concat", " ".join(["share"] * depths), "shares", axis=1),
        *(made for makers in outputs.values() for made in makers),
    ]
    return model(
        [tensor("reference", FLOAT, *image), tensor("distorted", FLOAT, *image)],
        [
            tensor("distance", FLOAT, "batch"),
            tensor("layers", FLOAT, "batch", "depths"),
            *(tensor(name, FLOAT, "batch", "h", "w") for name in names),
        ],
        nodes,
        replace(INFO, **info).to_metadata(),  # pyright: ignore[reportArgumentType]
    )
