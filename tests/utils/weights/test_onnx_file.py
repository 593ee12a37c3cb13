"""ONNX files against the onnx package, damaged ones, and what they may hold besides."""

from __future__ import annotations

import contextlib
import random
import struct

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from utils.weights.onnx_file import parse_onnx

DAMAGED = (ValueError, RecursionError, struct.error)
TYPES = {"f4": TensorProto.FLOAT, "u1": TensorProto.UINT8, "i1": TensorProto.INT8, "i4": TensorProto.INT32, "i8": 7}


def model_of(tensors: list[TensorProto]) -> bytes:
    """A model with numbers as attributes and typed inputs, which the parser skips."""
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["y"], strides=[2], name="first"),
        helper.make_node("Softmax", ["y"], ["z"], axis=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None]) for name in "xz"]
    return helper.make_model(helper.make_graph(nodes, "test", ends[:1], ends[1:], tensors)).SerializeToString()


def numbers(number_type: str) -> np.ndarray:
    values = np.random.default_rng(0).integers(-100, 100, (3, 5))
    return values.astype(number_type)


@pytest.mark.parametrize("number_type", TYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_equal_those_of_the_onnx_package(number_type, raw):
    arrays = {"matrix": numbers(number_type), "number": numbers(number_type)[0, 0], "empty": numbers(number_type)[:0]}
    tensors = [
        helper.make_tensor(
            name, TYPES[number_type], array.shape, array.tobytes() if raw else array.ravel().tolist(), raw=raw
        )
        for name, array in arrays.items()
    ]
    found = parse_onnx(model_of(tensors)).tensors
    assert found.keys() == arrays.keys()
    for tensor in tensors:
        np.testing.assert_array_equal(found[tensor.name], numpy_helper.to_array(tensor), strict=True)
        np.testing.assert_array_equal(found[tensor.name], arrays[tensor.name], strict=True)


def test_nodes():
    nodes = parse_onnx(model_of([])).nodes
    assert [(node.kind, node.inputs, node.outputs) for node in nodes] == [
        ("Conv", ("x", "weight"), ("y",)),
        ("Softmax", ("y",), ("z",)),
    ]


def test_constants_and_branches():
    """Constants count as tensors, and what stands in the branches of a condition counts too."""

    def branch(name: str, values: np.ndarray) -> onnx.GraphProto:
        node = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))
        end = helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)
        return helper.make_graph([node], name, [], [end])

    arrays = {"left": numbers("f4"), "right": numbers("f4")[:2]}
    branches = {f"{side}_branch": branch(*item) for side, item in zip(("then", "else"), arrays.items(), strict=True)}
    condition = helper.make_node("If", ["which"], ["y"], **branches)
    ends = [helper.make_tensor_value_info(*end) for end in (("which", TensorProto.BOOL, []), ("y", 1, None))]
    found = parse_onnx(
        helper.make_model(helper.make_graph([condition], "test", ends[:1], ends[1:])).SerializeToString()
    )
    assert [node.kind for node in found.nodes] == ["Constant", "Constant", "If"]
    assert found.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tensors[name], array, strict=True)


def test_tensors_of_other_types_and_places_are_refused():
    half = numpy_helper.from_array(np.zeros(2, np.float16), "half")
    with pytest.raises(ValueError, match="half of type 10"):
        parse_onnx(model_of([half]))
    outside = numpy_helper.from_array(np.zeros(2, np.float32), "outside")
    outside.data_location = TensorProto.EXTERNAL
    with pytest.raises(ValueError, match="outside lies in another file"):
        parse_onnx(model_of([outside]))


def test_damaged_files_raise_what_callers_expect():
    content = model_of([numpy_helper.from_array(numbers("f4"), "weight")])
    generator = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(content[: generator.randrange(len(content))] if generator.random() < 0.5 else content)
        for _ in range(generator.randrange(4) if damaged else 0):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        with contextlib.suppress(*DAMAGED):
            parse_onnx(bytes(damaged))


def test_a_model_without_a_graph_is_refused():
    for content in (b"", onnx.ModelProto(ir_version=10).SerializeToString()):
        with pytest.raises(ValueError, match="no graph"):
            parse_onnx(content)
