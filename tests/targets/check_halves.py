"""Models of 16-bit numbers at CPU levels that have instructions for them, against the same model at x86-64-v3, which converts and sums in f32.

usage: check_halves.py CMZC CACHE_DIR SYSROOT
Compiles small ONNX models (matrix products and convolutions of whole and odd sizes) to executables, runs AArch64's under qemu-aarch64-static and this
machine's own where it has the level. An element may differ by LARGEST of the output's root mean square: sums are rounded in another order, nothing else
is. A case also names an instruction that the level's assembly has to hold. Prints a line a case and `N passed, N failed, N skipped` last.
"""
import pathlib, subprocess, sys, tempfile
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGEST = {"bf16": 1e-2, "f16": 2e-3}  # one step of the type, where two sums round to different sides
CPUINFO = pathlib.Path("/proc/cpuinfo").read_text()
# level, the CPU that runs it, precision, ONNX type, instruction
LEVELS = [
    ("armv8.6-a+i8mm+bf16", "max", "bf16", np.float32, "bfmmla"),
    ("armv8.6-a+i8mm+bf16,armv8-a", "cortex-a53", "bf16", np.float32, None),
    ("armv8.2-a+fp16fml", "max", "f16", np.float16, "fmlal"),
    ("armv8.2-a+fp16fml", "max", "f16", np.float32, "fmlal"),
    ("x86-64-v4+avx512bf16", "avx512_bf16", "bf16", np.float32, "vdpbf16ps"),
    ("sapphirerapids", "amx_bf16", "bf16", np.float32, "tdpbf16ps"),
]


def weights(rng, dtype, *shape, fan):
    return (rng.standard_normal(shape) / np.sqrt(fan)).astype(dtype)


def chain(dtype, shape, out_shape, layers):
    """A model of layers (op, weights…, attributes) with Relu between them: what lies between is stored in 16 bits."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes, constants, value = [], [], "x"
    for i, (op, inputs, attributes) in enumerate(layers):
        names = [f"w{i}_{j}" for j in range(len(inputs))]
        constants += [numpy_helper.from_array(a, n) for a, n in zip(inputs, names)]
        nodes.append(helper.make_node(op, [value, *names], [f"s{i}"], **attributes))
        value = "o" if i + 1 == len(layers) else f"r{i}"
        nodes.append(helper.make_node("Relu", [f"s{i}"], [value]))
    graph = helper.make_graph(nodes, "halves", [helper.make_tensor_value_info("x", element, shape)],
                              [helper.make_tensor_value_info("o", element, out_shape)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def product(rng, dtype, m, k, n, name=None):
    layers = [("MatMul", [weights(rng, dtype, k, n, fan=k)], {}),
              ("Gemm", [weights(rng, dtype, k, n, fan=n), weights(rng, dtype, k, fan=1)], {"transB": 1}),
              ("MatMul", [weights(rng, dtype, k, n, fan=k)], {})]
    x = rng.standard_normal((m, k)).astype(dtype)
    return chain(dtype, [name or m, k], [name or m, n], layers), x


def window(rng, dtype, n, c, h, o, stride=1, group=1):
    layers = [("Conv", [weights(rng, dtype, c, c, 1, 1, fan=c)], {}),
              ("Conv", [weights(rng, dtype, o, c // group, 3, 3, fan=9 * c / group), weights(rng, dtype, o, fan=1)],
               {"pads": [1] * 4, "strides": [stride] * 2, "group": group}),
              ("Conv", [weights(rng, dtype, o, o, 1, 1, fan=o)], {})]
    side = (h - 1) // stride + 1
    return chain(dtype, [n, c, h, h], [n, o, side, side], layers), rng.standard_normal((n, c, h, h)).astype(dtype)


def cases(dtype):
    rng = np.random.default_rng(7)
    yield "13x64x96", product(rng, dtype, 13, 64, 96)
    yield "1x128x48", product(rng, dtype, 1, 128, 48)
    yield "70x192x64", product(rng, dtype, 70, 192, 64)
    yield "9x130x34", product(rng, dtype, 9, 130, 34)
    yield "5x63x95", product(rng, dtype, 5, 63, 95)
    yield "open 9x64x80", product(rng, dtype, 9, 64, 80, name="m")
    yield "sums", (chain(dtype, [3, 77], [3, 77], [("Add", [weights(rng, dtype, 77, fan=1)], {})]), rng.standard_normal((3, 77)).astype(dtype))
    yield "window 32 to 48", window(rng, dtype, 1, 32, 13, 48)
    yield "window of stride 2", window(rng, dtype, 2, 16, 9, 40, stride=2)
    yield "window of 4 groups", window(rng, dtype, 1, 32, 9, 32, group=4)


class Runner:
    def __init__(self, cmzc, cache, root, folder):
        self.cmzc, self.cache, self.root, self.folder = cmzc, cache, root, pathlib.Path(folder)

    def compile(self, target, level, precision, output):
        options = ["--precision", precision] if precision else []
        subprocess.run([self.cmzc, "model.onnx", "--cache-dir", self.cache, "--target", target, "--cpu", level, *options, "-o", output],
                       cwd=self.folder, check=True, capture_output=True, text=True)

    def result(self, level, cpu, precision):
        arm = level.startswith("arm")
        target = "aarch64-linux-gnu" if arm else "x86_64-linux-gnu"
        self.compile(target, level, precision, "model")
        command = ["qemu-aarch64-static", "-cpu", cpu, "-L", self.root] if arm else []
        subprocess.run([*command, "./model", "--input", "x=x.npy", "--output-dir", "."], cwd=self.folder, check=True, capture_output=True, text=True)
        return np.load(self.folder / "o.npy").astype(np.float64)

    def count(self, level, precision, instruction):
        target = "aarch64-linux-gnu" if level.startswith("arm") else "x86_64-linux-gnu"
        self.compile(target, level, precision, "model.s")
        return (self.folder / "model.s").read_text().count(instruction + "\t")


def check_level(runner, level, cpu, precision, dtype, instruction):
    """-> (cases that pass, messages of those that fail)"""
    passed, failed, found = 0, [], 0
    for name, (model, x) in cases(dtype):
        onnx.save(model, runner.folder / "model.onnx")
        np.save(runner.folder / "x.npy", x)
        flag = precision if dtype == np.float32 else None
        want = runner.result("x86-64-v3", "", flag)
        got = runner.result(level, cpu, flag)
        off = np.abs(got - want).max() / np.sqrt((want * want).mean())
        if off <= LARGEST[precision]: passed += 1
        else: failed.append(f"{name} at {level} on {cpu}: {off:.2g} of the root mean square off")
        if instruction and not found: found = runner.count(level, flag, instruction)
    if instruction and not found: failed.append(f"{level}: no {instruction}")
    return passed, failed


def main():
    cmzc, cache, root = sys.argv[1:4]
    passed = failed = skipped = 0
    for level, cpu, precision, dtype, instruction in LEVELS:
        if not level.startswith("arm") and cpu not in CPUINFO:
            skipped += 1
            print(f"skipped: {level}: this machine has no {cpu}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            good, bad = check_level(Runner(cmzc, cache, root, folder), level, cpu, precision, dtype, instruction)
        passed, failed = passed + good, failed + len(bad)
        for line in bad: print(f"FAILED: {line}")
        print(f"ok: {good} models of {np.dtype(dtype).name} as {precision} at {level}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
