"""Every kernel of models through NVIDIA's ptxas: does it assemble, and what does it take.

usage: check_ptxas.py BUILD_DIR CACHE_DIR MODELS_DIR [--only A,B] [--sm sm_80,sm_90] [--seconds N] [--table FILE] [-- cmzc options]
MODELS_DIR/NAME/NAME.onnx is compiled to PTX for each target and assembled for it (ptxas on PATH). Prints a line a model and target:
kernels, most registers, most shared memory, spilled bytes; `N of M assemble` and the kernels that spill last. --table: a line a kernel as
TSV (model, target, kernel, registers, shared bytes, stack bytes, spill stores, spill loads, barriers). --seconds: no model is begun later,
and what is left out is said. Exit status 1 where one does not assemble or a kernel that shares memory (a contraction in tiles) spills.
"""
import argparse, os, pathlib, re, subprocess, sys, tempfile, time

KERNEL = re.compile(r"Compiling entry function '([^']+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:, used (\d+) barriers)?(.*)")
SHARED = re.compile(r"(\d+) bytes smem")


def kernels(text):
    """ptxas -v's lines -> one dict a kernel"""
    rows, row = [], None
    for line in text.splitlines():
        if m := KERNEL.search(line):
            row = {"name": m[1], "registers": 0, "shared": 0, "stack": 0, "stores": 0, "loads": 0, "barriers": 0}
            rows.append(row)
        elif row and (m := FRAME.search(line)):
            row["stack"], row["stores"], row["loads"] = map(int, m.groups())
        elif row and (m := USED.search(line)):
            row["registers"], row["barriers"] = int(m[1]), int(m[2] or 0)
            if s := SHARED.search(m[3]): row["shared"] = int(s[1])
    return rows


def main():
    words, options = sys.argv[1:], []
    if "--" in words: words, options = words[:words.index("--")], words[words.index("--") + 1:]
    ap = argparse.ArgumentParser()
    ap.add_argument("build"); ap.add_argument("cache"); ap.add_argument("models"); ap.add_argument("--only")
    ap.add_argument("--sm", default="sm_80,sm_86,sm_89,sm_90"); ap.add_argument("--seconds", type=float, default=1e9); ap.add_argument("--table")
    a = ap.parse_args(words)
    paths = sorted((p for p in pathlib.Path(a.models).glob("*/*.onnx") if p.stem == p.parent.name and (not a.only or p.stem in a.only.split(","))),
                   key=lambda p: (p.stat().st_size, p.stem))
    start, good, count, left, spills, table = time.time(), 0, 0, [], [], []
    with tempfile.TemporaryDirectory() as folder:
        ptx = f"{folder}/model.ptx"
        for sm in a.sm.split(","):
            for path in paths:
                if time.time() - start > a.seconds: left.append(f"{path.stem} {sm}"); continue
                count += 1
                done = subprocess.run([os.path.join(a.build, "bin", "cmzc"), str(path), "-q", "--target", sm, "--cache-dir", a.cache, "-o", ptx, *options],
                                      capture_output=True, text=True)
                if done.returncode: print(f"{path.stem} {sm}: COMPILE {done.stderr.strip()[-200:]}", flush=True); continue
                done = subprocess.run(["ptxas", "-v", f"-arch={sm}", "-o", "/dev/null", ptx], capture_output=True, text=True)
                if done.returncode: print(f"{path.stem} {sm}: PTXAS {done.stderr.strip()[-300:]}", flush=True); continue
                rows = kernels(done.stderr + done.stdout)
                good += bool(rows)
                spilled = [r for r in rows if r["stores"] or r["loads"]]
                print(f"{path.stem:24} {sm} {len(rows):4} kernels, registers up to {max(r['registers'] for r in rows):3}, shared memory up to "
                      f"{max(r['shared'] for r in rows):6}, {sum(r['stores'] for r in rows)} bytes spilled in {len(spilled)}", flush=True)
                spills += [(path.stem, sm, r) for r in spilled]
                table += ["\t".join(map(str, (path.stem, sm, *r.values()))) for r in rows]
    if a.table:
        with open(a.table, "w") as f: f.write("model\ttarget\tkernel\tregisters\tshared\tstack\tspill_stores\tspill_loads\tbarriers\n" + "".join(t + "\n" for t in table))
    for model, sm, r in spills: print(f"spills: {model} {sm} {r['name']}: {r['stores']} stored, {r['loads']} loaded, {r['registers']} registers, {r['shared']} shared")
    if left: print(f"left out after {a.seconds:.0f} s: {', '.join(left)}")
    print(f"{good} of {count} assemble")
    sys.exit(good != count or count == 0 or any(r["shared"] for _, _, r in spills))


if __name__ == "__main__":
    main()
