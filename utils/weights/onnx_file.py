"""Nodes and stored tensors of an ONNX file, parsed from its bytes.

Written here so that reading weights needs neither the onnx package nor a certain protobuf. Format: onnx.proto3 of ONNX
1.22 in protobuf's wire format. Of attributes, only tensors (of constants) and graphs (branches) are read; metadata are
skipped, tensors in external files refused.

    message   fields: tag (number << 3 | wire type) as a varint, then the value
    wire type 0 varint | 1 eight bytes | 2 length as a varint, then that many bytes | 5 four bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes
# Numbers of the fields that are read, by message
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 5, 6
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INTS, _TENSOR_LONGS = 1, 2, 4, 5, 7
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_LOCATION = 8, 9, 14
# TensorProto.DataType: number type, and the field that holds values which are not stored raw
_TYPES = {
    1: ("<f4", _TENSOR_FLOATS),
    2: ("u1", _TENSOR_INTS),
    3: ("i1", _TENSOR_INTS),
    6: ("<i4", _TENSOR_INTS),
    7: ("<i8", _TENSOR_LONGS),
}


@dataclass(frozen=True)
class OnnxNode:
    """One operation; inputs and outputs are names of tensors."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """nodes in their stored order, those of branches before the node that has them; tensors: float32, uint8, int8,
    int32 or int64 arrays by name, constants by that of their node's output."""

    nodes: list[OnnxNode]
    tensors: dict[str, np.ndarray]


def parse_onnx(content: bytes) -> OnnxGraph:
    """The graph of a serialised model. ValueError, RecursionError or struct.error if it is damaged."""
    graph = OnnxGraph([], {})
    for number, value in _fields(memoryview(content)):
        if number == _MODEL_GRAPH:
            _read_graph(_message(value), graph)
    if not graph.nodes:
        raise ValueError("no graph")
    return graph


def _read_graph(content: memoryview, graph: OnnxGraph) -> None:
    """Add the nodes and tensors of a stored graph and of the branches in it."""
    for number, value in _fields(content):
        if number == _GRAPH_NODE:
            _read_node(_message(value), graph)
        elif number == _GRAPH_INITIALIZER:
            name, array = _tensor(_message(value))
            graph.tensors[name] = array


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of one field after the other."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(content, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(content, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"field of wire type {kind}")
        if size > len(content) - place:
            raise ValueError("field runs past the end")
        yield tag >> 3, content[place : place + size]
        place += size


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """An unsigned number of seven bits per byte, the lowest first, and the place behind it."""
    value = 0
    for n_read, byte in enumerate(content[place : place + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * n_read
        if byte < 0x80:
            return value, place + n_read + 1
    raise ValueError("number without an end")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()


def _read_node(content: memoryview, graph: OnnxGraph) -> None:
    kind, inputs, outputs = "", [], []
    constant: np.ndarray | None = None
    for number, value in _fields(content):
        if number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif number == _NODE_TYPE:
            kind = _text(value)
        elif number == _NODE_ATTRIBUTE:
            for part, stored in _fields(_message(value)):
                if part == _ATTRIBUTE_TENSOR:
                    _, constant = _tensor(_message(stored))
                elif part == _ATTRIBUTE_GRAPH:
                    _read_graph(_message(stored), graph)
    if kind == "Constant" and constant is not None and outputs:
        graph.tensors[outputs[0]] = constant
    graph.nodes.append(OnnxNode(kind, tuple(inputs), tuple(outputs)))


def _tensor(content: memoryview) -> tuple[str, np.ndarray]:
    name, kind, dims = "", 0, []
    raw: memoryview | None = None
    values: dict[int, list[int | memoryview]] = {}
    for number, value in _fields(content):
        if number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == _TENSOR_DIMS:
            dims += _numbers(value)
        elif number == _TENSOR_RAW:
            raw = _message(value)
        elif number == _TENSOR_LOCATION and value:
            raise ValueError(f"tensor {name} lies in another file")
        else:
            values.setdefault(number, []).append(value)
    if kind not in _TYPES:
        raise ValueError(f"tensor {name} of type {kind}")
    number_type, place = _TYPES[kind]
    if raw is not None:
        array = np.frombuffer(raw, number_type)
    elif place == _TENSOR_FLOATS:
        array = np.frombuffer(b"".join(map(bytes, map(_message, values.get(place, [])))), number_type)
    else:
        numbers = [number for value in values.get(place, []) for number in _numbers(value)]
        array = np.array(numbers, np.uint64).astype(np.int64).astype(number_type)
    return name, array.reshape(dims)


def _numbers(value: int | memoryview) -> list[int]:
    """A repeated field of varints, packed or one by one."""
    if isinstance(value, int):
        return [value]
    numbers, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        numbers.append(number)
    return numbers
