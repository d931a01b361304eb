"""make_models.py DIR - models for tests/vulkan/run.sh, with inputs and what they give.

DIR/large.onnx has a tensor of 140 MB, more than one storage-buffer binding reaches on every device (128 MiB), for a Gather and a
MatMul: inputs large_x.npy and large_i.npy, outputs large_rows.npy and large_product.npy. Rows at both sides of where a binding may
end are among those gathered. DIR/quantised.onnx has a ConvInteger with padding and a MatMulInteger: quantised_x.npy and quantised_a.npy
give quantised_conv.npy and quantised_product.npy, exact whole numbers as f32.
"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

folder = sys.argv[1]
random = np.random.default_rng(1)


def save(name, nodes, inputs, outputs, constants, arrays):
    graph = helper.make_graph(nodes, name, inputs, outputs, [numpy_helper.from_array(v, k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, f"{folder}/{name}.onnx")
    for key, value in arrays.items():
        np.save(f"{folder}/{name}_{key}.npy", value)


def port(name, element, dims):
    return helper.make_tensor_value_info(name, element, dims)


def large():
    rows, columns = 35000, 1000
    table = random.standard_normal((rows, columns), dtype=np.float32)
    x = random.standard_normal((1, rows), dtype=np.float32)
    middle = (1 << 27) // (4 * columns)
    i = np.array([0, rows - 1, middle - 1, middle, middle + 1, 7], np.int64)
    save(
        "large",
        [helper.make_node("Gather", ["table", "i"], ["rows"]), helper.make_node("MatMul", ["x", "table"], ["product"])],
        [port("x", TensorProto.FLOAT, [1, rows]), port("i", TensorProto.INT64, [len(i)])],
        [port("rows", TensorProto.FLOAT, [len(i), columns]), port("product", TensorProto.FLOAT, [1, columns])],
        {"table": table},
        {"x": x, "i": i, "rows": table[i], "product": (x.astype(np.float64) @ table).astype(np.float32)},
    )


def convolved(x, w, zero):
    """Padding by one, stride one; the padding has the data's zero point."""
    padded = np.pad(x.astype(np.int64) - zero, [(0, 0), (0, 0), (1, 1), (1, 1)])
    height, width = x.shape[2:]
    y = np.zeros((x.shape[0], w.shape[0], height, width), np.int64)
    for i in range(3):
        for j in range(3):
            y += np.einsum("nchw,oc->nohw", padded[:, :, i : i + height, j : j + width], w[:, :, i, j].astype(np.int64))
    return y.astype(np.float32)


def quantised():
    zero = np.uint8(7)
    x = random.integers(0, 256, (2, 32, 9, 7)).astype(np.uint8)
    w = random.integers(-127, 128, (24, 32, 3, 3)).astype(np.int8)
    a = random.integers(-128, 128, (37, 100)).astype(np.int8)
    v = random.integers(-127, 128, (100, 60)).astype(np.int8)
    save(
        "quantised",
        [
            helper.make_node("ConvInteger", ["x", "w", "zero"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Cast", ["c"], ["conv"], to=TensorProto.FLOAT),
            helper.make_node("MatMulInteger", ["a", "v"], ["p"]),
            helper.make_node("Cast", ["p"], ["product"], to=TensorProto.FLOAT),
        ],
        [port("x", TensorProto.UINT8, x.shape), port("a", TensorProto.INT8, a.shape)],
        [port("conv", TensorProto.FLOAT, [2, 24, 9, 7]), port("product", TensorProto.FLOAT, [37, 60])],
        {"w": w, "v": v, "zero": zero},
        {"x": x, "a": a, "conv": convolved(x, w, int(zero)), "product": (a.astype(np.int64) @ v).astype(np.float32)},
    )


large()
quantised()
