"""What of each model runs on a GPU, from cmzc's report; nothing is run.

usage: check_placement.py BUILD_DIR MODELS_DIR TARGET...
Every MODELS_DIR/NAME/NAME.onnx is checked for each target: on the host only operators of the runtime's closed table (below), at least
99 % of the FLOPs on the device. Then a small model whose copies are known. Prints what is wrong, `N of M right` last; exit 0 if all.
"""
import json, os, pathlib, subprocess, sys, tempfile

# Operators that run in C on the host (ir/ops: runtime_ops.c, strings.c, sequence.c). A pointwise, reduction, contraction, scan or movement
# operator has no business here.
CLOSED = set("""TopK NonZero Compress Unique NonMaxSuppression
StringConcat StringSplit StringNormalizer RegexFullMatch StringEqual StringCast LabelEncoder CategoryMapper
SequenceEmpty SequenceConstruct SequenceInsert SequenceErase SplitToSequence SequenceAt SequenceLength ConcatFromSequence SequenceMap
Optional OptionalHasElement OptionalGetElement""".split())
LEAST = 0.99


def report(cmzc, model, target, folder):
    path = f"{folder}/report.json"
    done = subprocess.run([cmzc, str(model), "--check", "-q", "--target", target, "--report", path], capture_output=True, text=True)
    if done.returncode: return None, done.stderr.strip()[-200:]
    return json.load(open(path))["device"], ""


def faults(device):
    outside = sorted({o["op"] for o in device["host_ops"]} - CLOSED)
    if outside: yield f"on the host: {', '.join(outside)}"
    if device["share_device"] < LEAST: yield f"{100 * device['share_device']:.2f} % of the FLOPs on the device"
    if not device["launches"]: yield "nothing on the device"


def small_model(path):
    """x -> MatMul -> TopK (host) -> Neg: what is copied can be said exactly."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save
    w = np.ones((64, 32), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "multiply"), helper.make_node("TopK", ["y", "k"], ["v", "i"], "best", axis=1),
             helper.make_node("Neg", ["v"], ["out"], "negate")]
    graph = helper.make_graph(nodes, "small", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 64])],
                              [helper.make_tensor_value_info("out", TensorProto.FLOAT, [8, 4]), helper.make_tensor_value_info("i", TensorProto.INT64, [8, 4])],
                              [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.array([4], np.int64), "k")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def check_small(cmzc, target, folder):
    small_model(f"{folder}/small.onnx")
    device, error = report(cmzc, f"{folder}/small.onnx", target, folder)
    if not device: return error
    if [(o["op"], o["node"]) for o in device["host_ops"]] != [("TopK", "best")]: return f"host_ops: {device['host_ops']}"
    copies = {(c["tensor"], c["to"], c["for"], c["bytes"]) for c in device["copies"]}
    want = {("x", "device", "input", 8 * 64 * 4), ("y", "host", "operator", 8 * 32 * 4), ("v", "device", "operator", 8 * 4 * 4),
            ("i", "device", "operator", 8 * 4 * 8), ("out", "host", "output", 8 * 4 * 4), ("i", "host", "output", 8 * 4 * 8)}
    if copies != want: return f"copies: {sorted(copies ^ want)}"
    if device["flops_device"] < 2 * 8 * 64 * 32: return f"FLOPs: {device['flops_device']}"
    return ""


def main():
    build, models, targets = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    cmzc = os.path.join(build, "bin", "cmzc")
    good = count = 0
    with tempfile.TemporaryDirectory() as folder:
        for target in targets:
            paths = [d / f"{d.name}.onnx" for d in sorted(models.iterdir())] if models.is_dir() else []
            for path in filter(pathlib.Path.exists, paths):
                device, error = report(cmzc, path, target, folder)
                wrong = list(faults(device)) if device else [error]
                for what in wrong: print(f"{target}: {path.stem}: {what}")
                count += 1
                good += not wrong
            wrong = check_small(cmzc, target, folder)
            if wrong: print(f"{target}: a model with TopK: {wrong}")
            count += 1
            good += not wrong
    print(f"{good} of {count} right")
    sys.exit(good != count)


if __name__ == "__main__":
    main()
