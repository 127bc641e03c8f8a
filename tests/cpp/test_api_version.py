"""The native runtime calls nothing that came to ONNX Runtime after the API version that it asks for."""

import re
from pathlib import Path

import native


def test_every_function_is_as_old_as_the_version_asked_for() -> None:
    asked = re.search(r"api_version = (\d+);", (native.HEADERS / "detail/library.hpp").read_text())
    assert asked is not None
    # `\since Version 1.11.` stands in the comment before a function; those of the first versions have none.
    header = Path(native.headers(), "onnxruntime_c_api.h").read_text()
    table = header[header.index("struct OrtApi {") :]
    since = {}
    for comment, name in re.findall(
        r"(/\*\*(?:(?!\*/).)*\*/|///[^\n]*)?\s*(?:ORT_API2_STATUS\(|ORT_CLASS_RELEASE\(|[\w* ]+\(ORT_API_CALL\* )(\w+)",
        table,
        re.DOTALL,
    ):
        found = re.search(r"\\since Version 1\.(\d+)", comment)
        since[name] = int(found[1]) if found else 0
    called = {
        name
        for file in native.HEADERS.rglob("*.hpp")
        for name in re.findall(r"\bapi(?:\.|_->)([A-Z]\w+)", file.read_text())
    }
    assert len(called) > 20
    classes = {name for name in called if name.startswith("Release")}
    unknown = {name for name in called - classes if name not in since}
    assert not unknown
    assert {name: since[name] for name in called - classes if since[name] > int(asked[1])} == {}
