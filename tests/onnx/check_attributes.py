"""check_attributes.py BUILD_DIR - the operator table's attribute lists against the operator definitions of the onnx package.

For each operator of ai.onnx that `cmzc --list-ops` names and each opset from its first one on: the attributes, their kinds
and which are required must be those of the package. Prints each difference and `N passed, N failed` (operators).
"""
import re
import subprocess
import sys

import onnx.defs

KINDS = {
    "FLOAT": "f", "INT": "i", "STRING": "s", "TENSOR": "t", "GRAPH": "g", "SPARSE_TENSOR": "x", "TYPE_PROTO": "p",
    "FLOATS": "F", "INTS": "I", "STRINGS": "S", "TENSORS": "T", "GRAPHS": "G", "SPARSE_TENSORS": "X", "TYPE_PROTOS": "P",
}


def listed(words, opset):
    """{name: (kind, required)} of a row's list at OPSET."""
    found = {}
    for word in words:
        name, kind, required, since, until = re.fullmatch(r"(\w+):(\w)(!?)(?:@(\d+))?(?:<(\d+))?", word).groups()
        if int(since or 0) <= opset and (until is None or opset < int(until)):
            found[name] = (kind, bool(required))
    return found


def defined(name, opset):
    """The same as the package has it; None where it does not have the operator or has given it up."""
    try:
        schema = onnx.defs.get_schema(name, opset, "")
    except onnx.defs.SchemaError:
        return None
    if schema.deprecated:
        return None
    return {
        a.name: (KINDS[str(a.type).rsplit(".", maxsplit=1)[-1]], a.required and a.name != "consumed_inputs")
        for a in schema.attributes.values()
    }


def main():
    build = sys.argv[1]
    text = subprocess.run([f"{build}/bin/cmzc", "--list-ops"], check=True, capture_output=True, text=True).stdout
    newest = onnx.defs.onnx_opset_version()
    good = bad = 0
    for line in text.splitlines():
        domain, name, _, since, rest = line.split(maxsplit=4)
        until, words = re.match(r"(?:on|to (\d+))\s*(.*)", rest).groups()
        if domain != "ai.onnx":
            continue
        differences = []
        for opset in range(int(since), min(int(until or newest), newest) + 1):
            want, have = defined(name, opset), listed(words.split(), opset)
            if want is not None and want != have:
                differences.append(f"opset {opset}: {sorted(set(want.items()) ^ set(have.items()))}")
        good, bad = good + (not differences), bad + bool(differences)
        if differences:
            print(f"FAILED {name}: {differences[0]}")
    print(f"{good} passed, {bad} failed")
    return 1 if bad or not good else 0


if __name__ == "__main__":
    sys.exit(main())
