"""check_graphs.py BUILD_DIR WORK_DIR - small graphs that the onnx package's own tests do not have, at -O0, -O2 and with pinned sizes.

Each is compiled and run by cmz-run; its outputs must be those of the onnx package's reference evaluator, on the same graph or, for operators
that it does not know, on one of the standard's operators that says the same. Prints each failure and `N passed, N failed` (runs).
"""
import pathlib
import re
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import ml_graphs

TYPES = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("float64"): TensorProto.DOUBLE, np.dtype("int64"): TensorProto.INT64}
RANDOM = np.random.default_rng(7)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def model(nodes, inputs, constants, outputs):
    """INPUTS: name -> array, the model's first dimension of each being open; OUTPUTS: name -> rank."""
    values = [
        helper.make_tensor_value_info(name, TYPES[a.dtype], [f"{name}_{i}" if i == 0 else d for i, d in enumerate(a.shape)])
        for name, a in inputs.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()]
    stored = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    graph = helper.make_graph(nodes, "main", values, results, stored)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def gather_from_pad():
    """What is read depends on stored indices, whether it is padding on the vector axis too."""
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Gather", ["p", "rows"], ["r"], axis=2),
        helper.make_node("Gather", ["r", "columns"], ["y"], axis=4),
    ]
    constants = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "rows": np.arange(3)[:, None] + np.arange(6),
        "columns": np.arange(3)[:, None] + np.arange(10),
    }
    return model(nodes, {"x": normal(1, 8, 6, 10)}, constants, {"y": 6}), {"x": normal(1, 8, 6, 10)}, None


def grouped_convolutions():
    """Groups of 24, 16, 8 and 4 output channels between others."""
    nodes, constants, last = [], {}, "x"
    for i, (out, inside, kernel, group) in enumerate([(48, 3, 3, 1), (48, 24, 3, 2), (64, 12, 3, 4), (64, 8, 1, 8), (32, 8, 3, 8), (5, 32, 1, 1)]):
        constants[f"w{i}"] = normal(out, inside, kernel, kernel) / np.float32(kernel * np.sqrt(inside))
        constants[f"b{i}"] = normal(out)
        nodes.append(helper.make_node("Conv", [last, f"w{i}", f"b{i}"], [f"c{i}"], group=group, pads=[kernel // 2] * 4, strides=[1 + (i == 2)] * 2))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        last = f"r{i}"
    feeds = {"x": normal(2, 3, 11, 13)}
    return model(nodes, feeds, constants, {last: 4}), feeds, None


def regions():
    """RoiAlign whose number of samples follows from each region: inside, beyond the data, empty, turned around."""
    nodes, outputs = [], {}
    for mode in ("avg", "max"):
        for corner in ("half_pixel", "output_half_pixel"):
            outputs[f"{mode}_{corner}"] = 4
            nodes.append(
                helper.make_node(
                    "RoiAlign", ["x", "rois", "batches"], [f"{mode}_{corner}"], mode=mode, coordinate_transformation_mode=corner,
                    output_height=2, output_width=3, spatial_scale=0.7,
                )
            )
    rois = np.array([[0, 0, 5, 6], [1, 2, 11.5, 9], [3, 3, 3, 3], [-4, -3, 30, 20], [5, 5, 2, 2]], np.float32)
    feeds = {"x": normal(2, 3, 10, 12), "rois": rois, "batches": np.array([0, 1, 0, 1, 1], np.int64)}
    return model(nodes, feeds, {}, outputs), feeds, None


ACTIVATIONS = {
    "Relu": {}, "Tanh": {}, "Sigmoid": {}, "LeakyRelu": {"alpha": 0.1}, "HardSigmoid": {"alpha": 0.3, "beta": 0.4}, "Clip": {"low": -0.5, "high": 0.7},
}


def fused_convolutions():
    feeds = {"x": normal(2, 3, 7, 9), "sum": normal(2, 4, 7, 9)}
    constants = {"w": normal(4, 3, 3, 3), "b": normal(4), "low": np.array(-0.5, np.float32), "high": np.array(0.7, np.float32)}
    fused, plain = [], [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4), helper.make_node("Add", ["c", "sum"], ["s"])]
    for name, numbers in ACTIVATIONS.items():
        attributes = {"activation": name, **({"activation_params": list(numbers.values())} if numbers else {})}
        fused.append(helper.make_node("FusedConv", ["x", "w", "b", "sum"], [name], domain="com.microsoft", pads=[1] * 4, **attributes))
        bounds = list(numbers) if name == "Clip" else []
        plain.append(helper.make_node(name, ["s", *bounds], [name], **({} if bounds else numbers)))
    outputs = dict.fromkeys(ACTIVATIONS, 4)
    return model(fused, feeds, {k: constants[k] for k in "wb"}, outputs), feeds, model(plain, feeds, constants, outputs)


def position_buckets():
    """A table's entries, chosen by computed distances, added to a product: as T5 does."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Sub", ["i", "j"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Cast", ["distance"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["real", "one"], ["more"]),
        helper.make_node("Log", ["more"], ["log"]),
        helper.make_node("Cast", ["log"], ["bucket"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "bucket"], ["bias"]),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    constants = {"w": normal(16, 24), "j": np.arange(24, dtype=np.int64), "one": np.array(1, np.float32), "table": normal(8)}
    feeds = {"x": normal(20, 16), "i": np.arange(20, dtype=np.int64)[:, None] * 3}
    return model(nodes, feeds, constants, {"y": 2}), feeds, None


def transposed_convolutions():
    """Strides that spread the input, 16, 5 and 2 output channels, at open sizes."""
    nodes, constants, last = [], {}, "x"
    for i, (inside, out, kernel, stride, pad, extra) in enumerate([(6, 16, 8, 4, 2, 0), (16, 5, 3, 2, 1, 1), (5, 2, 5, 3, 0, 0)]):
        constants[f"w{i}"] = normal(inside, out, kernel) / np.float32(np.sqrt(inside))
        constants[f"b{i}"] = normal(out)
        nodes.append(
            helper.make_node("ConvTranspose", [last, f"w{i}", f"b{i}"], [f"c{i}"], strides=[stride], pads=[pad] * 2, output_padding=[extra])
        )
        nodes.append(helper.make_node("Tanh", [f"c{i}"], [f"t{i}"]))
        last = f"t{i}"
    feeds = {"x": normal(2, 6, 7)}
    return model(nodes, feeds, constants, {"t0": 3, "t1": 3, "t2": 3}), feeds, None


def group_norms():
    """GroupNorm as exporters write it, after strided convolutions at open sizes: sizes must not grow from one to the next."""
    nodes, last = [], "x"
    constants = {
        "groups": np.array([0, 4, -1], np.int64), "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32),
        "w": normal(8, 8, 3, 3) / np.float32(9),
    }
    for i in range(6):
        nodes += [
            helper.make_node("Conv", [last, "w"], [f"c{i}"], pads=[1] * 4, strides=[2 if i < 2 else 1] * 2),
            helper.make_node("Reshape", [f"c{i}", "groups"], [f"g{i}"]),
            helper.make_node("InstanceNormalization", [f"g{i}", "one", "zero"], [f"n{i}"]),
            helper.make_node("Shape", [f"c{i}"], [f"s{i}"]),
            helper.make_node("Reshape", [f"n{i}", f"s{i}"], [f"y{i}"]),
        ]
        last = f"y{i}"
    feeds = {"x": normal(2, 8, 21, 17)}
    built = model(nodes, feeds, constants, {last: 4})
    for axis in (2, 3):
        built.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"open_{axis}"
    return built, feeds, None


def unwanted_branch_output():
    """Branches with an output that the If does not give on."""

    def branch(op):
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (f"{op}_a", f"{op}_b")]
        nodes = [helper.make_node(op, ["x"], [f"{op}_a"]), helper.make_node("Neg", ["x"], [f"{op}_b"])]
        return helper.make_graph(nodes, op, [], given)

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["high"]),
        helper.make_node("If", ["high"], ["y", ""], then_branch=branch("Sin"), else_branch=branch("Abs")),
    ]
    feeds = {"x": normal(3, 4)}
    return model(nodes, feeds, {"limit": np.float32(0)}, {"y": 2}), feeds, None


def boxed_numbers():
    """Single numbers of any rank where an operator asks for one (Range, Trilu)."""
    nodes = [
        helper.make_node("ReduceMin", ["i"], ["from"], keepdims=1),
        helper.make_node("ReduceMax", ["i"], ["to"], keepdims=1),
        helper.make_node("Sub", ["from", "four"], ["k"]),
        helper.make_node("Range", ["from", "to", "step"], ["steps"]),
        helper.make_node("Cast", ["steps"], ["float_steps"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "float_steps"], ["sum"]),
        helper.make_node("Trilu", ["sum", "k"], ["y"]),
    ]
    feeds = {"x": normal(4, 5), "i": np.array([[[3, 13]], [[7, 5]]], np.int64)}
    constants = {"four": np.int64(4), "step": np.full((1, 1, 1), 2, np.int64)}
    return model(nodes, feeds, constants, {"y": 2}), feeds, None


def dynamic_lstm():
    """com.microsoft's LSTM with matrices of bytes, one step; the standard's operators on the same numbers."""
    hidden, size = 4, 6
    constants = {
        "w": RANDOM.integers(-90, 90, (1, size, 4 * hidden)).astype(np.int8), "r": RANDOM.integers(0, 255, (1, hidden, 4 * hidden)).astype(np.uint8),
        "b": normal(1, 8 * hidden), "ws": np.array([0.011], np.float32), "wz": np.zeros(1, np.int8),
        "rs": RANDOM.uniform(0.005, 0.02, (1, 4 * hidden)).astype(np.float32), "rz": np.full((1, 4 * hidden), 128, np.uint8),
    }
    feeds = {"x": normal(1, 3, size), "h": normal(1, 3, hidden), "c": normal(1, 3, hidden)}
    inputs = ["x", "w", "r", "b", "", "h", "c", "", "ws", "wz", "rs", "rz"]
    node = helper.make_node("DynamicQuantizeLSTM", inputs, ["", "y", "y_c"], domain="com.microsoft", hidden_size=hidden)
    plain, nodes = {"one_b": constants["b"][0, : 4 * hidden] + constants["b"][0, 4 * hidden :], "split": np.full(4, hidden)}, []
    for data, matrix, key in (("x", "w", "w"), ("h", "r", "r")):
        plain |= {matrix: constants[matrix][0], f"{key}s": constants[f"{key}s"][0], f"{key}z": constants[f"{key}z"][0]}
        if key == "w":
            plain["wz"] = plain["wz"].reshape(())
        nodes += [
            helper.make_node("DynamicQuantizeLinear", [data], [f"{data}_q", f"{data}_s", f"{data}_z"]),
            helper.make_node("MatMulInteger", [f"{data}_q", matrix, f"{data}_z", f"{key}z"], [f"{data}_i"]),
            helper.make_node("Cast", [f"{data}_i"], [f"{data}_f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{data}_s", f"{key}s"], [f"{data}_t"]),
            helper.make_node("Mul", [f"{data}_f", f"{data}_t"], [f"{data}_p"]),
        ]
    steps = "Sum x_p h_p one_b > g;Split g split > gi go gf gc;Sigmoid gi > i;Sigmoid go > o;Sigmoid gf > f;Tanh gc > k;Mul f c > fc;Mul i k > ik;"
    for step in (steps + "Add fc ik > y_c;Tanh y_c > t;Mul o t > y").split(";"):
        given, results = step.split(" > ")
        attributes = {"axis": 2} if given.startswith("Split") else {}
        nodes.append(helper.make_node(given.split()[0], given.split()[1:], results.split(), **attributes))
    outputs = {"y": 3, "y_c": 3}
    return model([node], feeds, constants, outputs), feeds, model(nodes, feeds, plain, outputs)


GRAPHS = [group_norms, dynamic_lstm, unwanted_branch_output, boxed_numbers, gather_from_pad, grouped_convolutions, regions, fused_convolutions, transposed_convolutions, position_buckets]


def run(build, work, name, feeds, options):
    """{output name as a file: array}, or what went wrong."""
    library, out = work / f"{name}.so", work / f"{name}.out"
    out.mkdir(exist_ok=True)
    done = subprocess.run([f"{build}/bin/cmzc", str(work / f"{name}.onnx"), *options, "-o", str(library)], capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    arguments = []
    for key, value in feeds.items():
        np.save(work / f"{name}.{key}.npy", value)
        arguments += ["--input", f"{key}={work}/{name}.{key}.npy"]
    done = subprocess.run([f"{build}/bin/cmz-run", str(library), "--output-dir", str(out), *arguments], capture_output=True, text=True)
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr.strip()}"
    return {path.stem: np.load(path) for path in out.iterdir()}


def main():
    build, work = sys.argv[1], pathlib.Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    good = bad = 0
    for make in GRAPHS + ml_graphs.GRAPHS:
        compiled, feeds, standard = make()
        onnx.save(compiled, work / f"{make.__name__}.onnx")
        names = [o.name for o in compiled.graph.output]
        wanted = ReferenceEvaluator(standard or compiled).run(names, feeds)
        pins = [word for key, a in feeds.items() for word in ("--shape", f"{key}={'x'.join(map(str, a.shape))}")]
        for options in (["-O0"], ["-O2"], ["-O2", *pins]):
            got = run(build, work, make.__name__, feeds, options)
            wrong = [got] if isinstance(got, str) else []
            for name, want in zip(names, wanted):
                have = None if wrong else got.get(re.sub(r"[^A-Za-z0-9._-]", "_", name))
                if have is None or have.shape != want.shape or not np.allclose(have, want, rtol=1e-4, atol=1e-4):
                    wrong.append(f"output {name}")
            good, bad = good + (not wrong), bad + bool(wrong)
            if wrong:
                print(f"FAILED {make.__name__} {' '.join(options)}: {wrong[0]}")
    print(f"{good} passed, {bad} failed")
    return 1 if bad or not good else 0


if __name__ == "__main__":
    sys.exit(main())
