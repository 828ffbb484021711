"""External data: read where it lies beside the model, refused where it leads elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loading import linear, node, normal, proto, refused
from onnx import TensorProto, helper, numpy_helper

from initlint.load.from_onnx import open_onnx


def beside(folder: Path, location: str, offset: int | None = None, length: int | None = None) -> Path:
    """A model whose 64-byte weight lies in an external file."""
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_from_its_offset(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\x01" * 12 + normal(4, 4).tobytes())
    model = open_onnx(beside(tmp_path, "w.bin", 12, 64))
    np.testing.assert_array_equal(np.concatenate(list(model.chunks("w"))), normal(4, 4).T)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 32), (-4, 64), (2**62, 64), (0, 2**40), (1, 64), ("a", 64), (0, "b"), (0, -2)],
)
def test_external_data_that_does_not_fit(tmp_path: Path, offset: int, length: int) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    assert "'w'" in refused(beside(tmp_path, "w.bin", offset, length))


def test_external_data_cut_short(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(60))
    assert "too short" in refused(beside(tmp_path, "w.bin"))


@pytest.mark.parametrize("location", ["absent.bin", "", ".", "a\0b", "*/_ORT_MEM_ADDR_/*", "x" * 300, "a\nb\x1b[31m"])
def test_external_data_that_is_missing(tmp_path: Path, location: str) -> None:
    assert "copy that file" in refused(beside(tmp_path, location))


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "sub/../../w.bin"])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    assert "outside" in refused(beside(inside, location))


@pytest.mark.parametrize("link", ["file", "folder"])
def test_external_data_behind_a_link_that_leads_outside(tmp_path: Path, link: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "w.bin").write_bytes(bytes(64))
    if link == "file":
        (inside / "w.bin").symlink_to(outside / "w.bin")
        refused(beside(inside, "w.bin"))
    else:
        (inside / "sub").symlink_to(outside)
        refused(beside(inside, "sub/w.bin"))


def test_a_hugging_face_cache_of_links_is_read(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    beside(blobs, "w.bin").rename(blobs / "c0ffee")
    (blobs / "beef").write_bytes(normal(4, 4).tobytes())
    (snapshot / "model.onnx").symlink_to(blobs / "c0ffee")
    (snapshot / "w.bin").symlink_to(blobs / "beef")
    assert len(open_onnx(snapshot / "model.onnx").model.layers) == 1


def test_external_data_of_a_model_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    assert "name the file" in refused(beside(tmp_path, "w.bin").read_bytes())


def test_external_data_of_a_local_function_is_checked_too(tmp_path: Path) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../w.bin")
    constant = node("Constant", [], ["c"], value=numpy_helper.from_array(normal(1)))
    constant.attribute[0].t.CopyFrom(tensor)
    function = helper.make_function(
        "local", "F", ["a"], ["b"], [constant, node("MatMul", ["a", "c"], ["b"])], [helper.make_opsetid("", 18)]
    )
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = inside / "model.onnx"
    path.write_bytes(proto([node("F", ["x"], ["y"], domain="local")], functions=[function]).SerializeToString())
    assert "outside" in refused(path)
