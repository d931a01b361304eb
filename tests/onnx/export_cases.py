#!/usr/bin/env python3
"""Writes the ONNX project's own backend tests as plain files for run_cases (run_cases.c says the format).

usage: export_cases.py OUT_DIR
Needs PyPI's onnx. A case's folder is OUT_DIR/KIND.NAME with model.onnx, case.txt and raw little-endian tensors; case.txt:
  tolerance RTOL ATOL
  set                                        (once for each data set)
  in|out INDEX NAME DTYPE RANK DIMS... FILE   (DTYPE: ONNX's number; sub-byte types packed, low bits first)
  in|out INDEX NAME other                     (a sequence, optional, string …: the runner expects a refusal)
"""
import pathlib, sys, warnings

warnings.simplefilter("ignore")
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
import onnx.backend.test as backend_test

DATA = pathlib.Path(backend_test.__file__).parent / "data"


def tensor_bytes(tensor):
    """The little-endian bytes of a TensorProto, whatever field holds them; None where it has no such form."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return None
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    array = numpy_helper.to_array(tensor)
    copy = numpy_helper.from_array(array)
    return copy.raw_data if copy.data_type == tensor.data_type else None


def write_tensor(folder, lines, role, index, name, file_name, tensor):
    data = tensor_bytes(tensor)
    name = name.replace(" ", "_") or "_"
    if data is None:
        lines.append(f"{role} {index} {name} other")
        return
    (folder / file_name).write_bytes(data)
    dims = " ".join(str(d) for d in tensor.dims)
    lines.append(f"{role} {index} {name} {tensor.data_type} {len(tensor.dims)} {dims} {file_name}".replace("  ", " "))


def load_tensor(path, type_proto):
    if type_proto is None or type_proto.WhichOneof("value") == "tensor_type":
        tensor = TensorProto()
        tensor.ParseFromString(path.read_bytes())
        return tensor
    return None


def export_case(out, case):
    model_dir = pathlib.Path(case.model_dir) if case.model_dir else None
    if case.model is not None:
        model = case.model
    else:
        model = onnx.load(model_dir / "model.onnx")
    folder = out / f"{case.kind}.{case.name}"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    # The suite feeds the graph's inputs in order, initialised ones included when the data set has them.
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    lines = [f"tolerance {case.rtol} {case.atol}"]
    sets = case.data_sets
    if sets:
        for number, (ins, outs) in enumerate(sets):
            lines.append("set")
            for role, values, ports in (("in", ins, inputs), ("out", outs, outputs)):
                for i, value in enumerate(values):
                    port = ports[i]
                    name = f"{number}_{role}{i}.bin"
                    if isinstance(value, TensorProto):
                        write_tensor(folder, lines, role, i, port.name, name, value)
                        continue
                    kind = port.type.WhichOneof("value")
                    if kind != "tensor_type" or value is None or isinstance(value, (list, dict)):
                        lines.append(f"{role} {i} {port.name or '_'} other")
                        continue
                    write_tensor(folder, lines, role, i, port.name, name, numpy_helper.from_array(np.asarray(value)))
    else:
        for number, data in enumerate(sorted(model_dir.glob("test_data_set_*"))):
            lines.append("set")
            for role, ports in (("in", inputs), ("out", outputs)):
                for i in range(len(list(data.glob(("input" if role == "in" else "output") + "_*.pb")))):
                    path = data / f"{'input' if role == 'in' else 'output'}_{i}.pb"
                    tensor = load_tensor(path, ports[i].type)
                    if tensor is None:
                        lines.append(f"{role} {i} {ports[i].name or '_'} other")
                    else:
                        write_tensor(folder, lines, role, i, ports[i].name, f"{number}_{role}{i}.bin", tensor)
    (folder / "case.txt").write_text("\n".join(lines) + "\n")


def export_light(out):
    """The light models: inputs are all ones in the suite's convention (arange-filled by its runner's seed-free rule)."""
    for path in sorted((DATA / "light").glob("*.onnx")):
        model = onnx.load(path)
        folder = out / f"light.{path.stem}"
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / "model.onnx")
        lines = ["tolerance 0.001 1e-05", "set"]
        initialised = {t.name for t in model.graph.initializer}
        for i, port in enumerate(p for p in model.graph.input if p.name not in initialised):
            shape = [d.dim_value for d in port.type.tensor_type.shape.dim]
            size = int(np.prod(shape))
            data = (np.arange(size).reshape(shape) / size).astype(np.float32)
            write_tensor(folder, lines, "in", i, port.name, f"0_in{i}.bin", numpy_helper.from_array(data))
        expected = TensorProto()
        expected.ParseFromString((path.parent / f"{path.stem}_output_0.pb").read_bytes())
        write_tensor(folder, lines, "out", 0, model.graph.output[0].name, "0_out0.bin", expected)
        (folder / "case.txt").write_text("\n".join(lines) + "\n")


def main():
    out = pathlib.Path(sys.argv[1])
    count = 0
    for kind in ("node", "simple", "pytorch-converted", "pytorch-operator"):
        for case in load_model_tests(kind=kind):
            export_case(out, case)
            count += 1
    export_light(out)
    print(f"{count} cases and the light models written")


if __name__ == "__main__":
    main()
