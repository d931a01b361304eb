#!/usr/bin/env python3
"""Writes the ONNX project's own backend tests as plain files for run_cases (run_cases.c says the format).

usage: export_cases.py OUT_DIR
Needs PyPI's onnx. A case's folder is OUT_DIR/KIND.NAME with model.onnx, case.txt and raw little-endian tensors; case.txt:
  tolerance RTOL ATOL
  set                                        (once for each data set)
  in|out INDEX NAME DTYPE RANK DIMS... FILE   (DTYPE: ONNX's number; sub-byte types packed, low bits first; strings: UTF-8, each
                                              followed by a zero byte)
  in|out INDEX NAME seq COUNT                 (a sequence), then for each item: DTYPE RANK DIMS... FILE
  in|out INDEX NAME none                      (an optional that is absent; one that is present is written as its content)
  in|out INDEX NAME other                     (a map, or a type without such a form: the runner cannot feed it)
"""
import pathlib, sys, warnings

warnings.simplefilter("ignore")
import numpy as np
import onnx
from onnx import OptionalProto, SequenceProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests
import onnx.backend.test as backend_test

DATA = pathlib.Path(backend_test.__file__).parent / "data"


def tensor_bytes(tensor):
    """The little-endian bytes of a TensorProto, whatever field holds them; None where it has no such form."""
    if tensor.data_type == TensorProto.STRING:
        return b"".join(text + b"\0" for text in tensor.string_data)
    if tensor.data_type == TensorProto.UNDEFINED:
        return None
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    array = numpy_helper.to_array(tensor)
    copy = numpy_helper.from_array(array)
    return copy.raw_data if copy.data_type == tensor.data_type else None


def tensor_words(folder, file_name, tensor):
    """DTYPE RANK DIMS... FILE of a tensor that it writes; None where it has no such form."""
    data = tensor_bytes(tensor)
    if data is None:
        return None
    (folder / file_name).write_bytes(data)
    return [str(tensor.data_type), str(len(tensor.dims)), *map(str, tensor.dims), file_name]


def write_value(folder, lines, role, index, name, file_name, value):
    """VALUE: a TensorProto, a list of them, or None."""
    if value is None:
        words = ["none"]
    elif isinstance(value, list):
        items = [tensor_words(folder, f"{file_name}.{i}", item) for i, item in enumerate(value)]
        words = ["other"] if None in items else ["seq", str(len(items)), *(word for item in items for word in item)]
    else:
        words = tensor_words(folder, file_name, value) or ["other"]
    lines.append(" ".join([role, str(index), name.replace(" ", "_") or "_", *words]))


def parse(message, data):
    message.ParseFromString(data)
    return message


def from_optional(optional):
    if optional.elem_type == OptionalProto.TENSOR and optional.HasField("tensor_value"):
        return optional.tensor_value
    if optional.elem_type == OptionalProto.SEQUENCE and optional.HasField("sequence_value"):
        return list(optional.sequence_value.tensor_values)
    return None


def load_value(path, type_proto):
    data, kind = path.read_bytes(), type_proto.WhichOneof("value") if type_proto else "tensor_type"
    if kind == "sequence_type":
        return list(parse(SequenceProto(), data).tensor_values)
    return from_optional(parse(OptionalProto(), data)) if kind == "optional_type" else parse(TensorProto(), data)


def from_memory(value):
    """What the loader gives: messages, arrays, lists of them."""
    if value is None or isinstance(value, TensorProto):
        return value
    if isinstance(value, SequenceProto):
        return list(value.tensor_values)
    if isinstance(value, OptionalProto):
        return from_optional(value)
    if isinstance(value, list):
        return [from_memory(item) for item in value]
    return numpy_helper.from_array(np.asarray(value))


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
                    write_value(folder, lines, role, i, port.name, name, from_memory(value))
    else:
        for number, data in enumerate(sorted(model_dir.glob("test_data_set_*"))):
            lines.append("set")
            for role, ports in (("in", inputs), ("out", outputs)):
                for i in range(len(list(data.glob(("input" if role == "in" else "output") + "_*.pb")))):
                    path = data / f"{'input' if role == 'in' else 'output'}_{i}.pb"
                    value = load_value(path, ports[i].type)
                    write_value(folder, lines, role, i, ports[i].name, f"{number}_{role}{i}.bin", value)
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
            write_value(folder, lines, "in", i, port.name, f"0_in{i}.bin", numpy_helper.from_array(data))
        expected = TensorProto()
        expected.ParseFromString((path.parent / f"{path.stem}_output_0.pb").read_bytes())
        write_value(folder, lines, "out", 0, model.graph.output[0].name, "0_out0.bin", expected)
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
