"""large_model.py DIR - a model with a tensor of 140 MB, more than one storage-buffer binding reaches on every device (128 MiB).

Out: DIR/large.onnx, its inputs large_x.npy and large_i.npy, and what a Gather from the tensor and a MatMul by it give:
large_rows.npy, large_product.npy. Rows at both sides of where a binding may end are among those gathered.
"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS, COLUMNS = 35000, 1000
folder = sys.argv[1]
random = np.random.default_rng(1)
table = random.standard_normal((ROWS, COLUMNS), dtype=np.float32)
x = random.standard_normal((1, ROWS), dtype=np.float32)
middle = (1 << 27) // (4 * COLUMNS)
i = np.array([0, ROWS - 1, middle - 1, middle, middle + 1, 7], np.int64)
graph = helper.make_graph(
    [helper.make_node("Gather", ["table", "i"], ["rows"]), helper.make_node("MatMul", ["x", "table"], ["product"])],
    "large",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, ROWS]), helper.make_tensor_value_info("i", TensorProto.INT64, [len(i)])],
    [
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, [len(i), COLUMNS]),
        helper.make_tensor_value_info("product", TensorProto.FLOAT, [1, COLUMNS]),
    ],
    [numpy_helper.from_array(table, "table")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.save(model, f"{folder}/large.onnx")
for name, value in {"x": x, "i": i, "rows": table[i], "product": (x.astype(np.float64) @ table).astype(np.float32)}.items():
    np.save(f"{folder}/large_{name}.npy", value)
