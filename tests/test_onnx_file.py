"""External weights are found wherever a network can hide them, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearcase.encode.onnx_file import refuse_external_data
from nearcase.errors import Unready

onnx = pytest.importorskip("onnx", reason="onnx builds the networks of this test: pip install nearcase[models]")
helper = onnx.helper


def tensor(name: str, *, external: bool) -> Any:
    made = onnx.numpy_helper.from_array(np.arange(300, dtype=np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value="../../etc/weights.bin")
    return made


def graph(external: str, place: str) -> Any:
    """A graph with a tensor in each place that one can be; the named one lies in another file."""
    constant = helper.make_node("Constant", [], ["c"], value=tensor("c", external=place == external))
    sparse = onnx.SparseTensorProto(values=tensor("s", external=external == "sparse"), dims=[300])
    return helper.make_graph(
        [constant], "g", [], [], [tensor("w", external=external == f"{place} weight")], sparse_initializer=[sparse]
    )


def network(external: str) -> bytes:
    branches = {"then_branch": graph(external, "branch"), "else_branch": graph("", "branch")}
    inner = helper.make_node("If", ["x"], ["y"], **branches)
    body = graph(external, "outer")
    body.node.append(inner)
    function = helper.make_function(
        "nearcase",
        "F",
        [],
        ["c"],
        [helper.make_node("Constant", [], ["c"], value=tensor("c", external=external == "function"))],
        [helper.make_opsetid("", 18)],
    )
    model = helper.make_model(body, functions=[function])
    model.doc_string = "external_data location: nowhere"  # words alone are no external data
    serialized: bytes = model.SerializeToString()
    return serialized


@pytest.mark.parametrize("place", ["outer", "outer weight", "branch", "branch weight", "sparse", "function"])
def test_external_data_is_found_wherever_it_hides(tmp_path: Path, place: str) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(network(place))
    with pytest.raises(Unready, match="external data") as refused:
        refuse_external_data(path)
    assert refused.value.reason == "ONNX_EXTERNAL_DATA"


def test_a_network_with_all_its_weights_passes(tmp_path: Path, encoder_folder: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(network("nothing"))
    refuse_external_data(path)
    refuse_external_data(encoder_folder / "encoder.onnx")


def test_what_the_onnx_package_writes_outside_is_refused(tmp_path: Path, encoder_folder: Path) -> None:
    model = onnx.load(encoder_folder / "encoder.onnx")
    path = tmp_path / "encoder.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin")
    with pytest.raises(Unready, match="external data"):
        refuse_external_data(path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 30, b"\x3a\xff\xff\xff\xff\x0f", b"\x3b\x00"])
def test_other_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(content)
    with pytest.raises(Unready, match="ONNX file"):
        refuse_external_data(path)


def test_a_tower_of_graphs_is_refused_without_a_crash(tmp_path: Path) -> None:
    """Each graph holds a node that holds a graph: a parser that recurses at will dies of it."""

    def field(number: int, payload: bytes) -> bytes:
        length, size = b"", len(payload)
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    inner = b""
    for _ in range(2000):
        inner = field(1, field(5, field(6, inner)))
    (tmp_path / "encoder.onnx").write_bytes(field(7, inner))
    with pytest.raises(Unready, match="ONNX file"):
        refuse_external_data(tmp_path / "encoder.onnx")
