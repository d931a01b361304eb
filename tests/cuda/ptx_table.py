"""What CUDA's matrix kernels of models take, as a table: registers, shared memory, spills, and issue slots per 512 bytes of weights.

usage: ptx_table.py BUILD_DIR CACHE_DIR MODEL.onnx... [--sm sm_90] [--most N] [--disassembler PATH] [-- cmzc options]
Each model is compiled to PTX and assembled (ptxas on PATH). A matrix kernel has HMMA, IMMA or their kin. With a disassembler (nvdisasm, on PATH or named)
its main loop, the innermost that multiplies matrices, is counted in SASS, an instruction an issue slot of a warp: all of it, and without what stands
between its barriers (staging of activations). 512 bytes of weights are a 128-bit load by a warp, of read-only memory or outside of these; loops inside of the main one
are counted once and marked +. Prints a line a kernel, `N matrix kernels` last. --most: exit status 1 when a kernel takes more slots, staging included.
"""
import argparse, os, re, shutil, subprocess, sys, tempfile

KERNEL = re.compile(r"Compiling entry function '([^']+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(.*)")
SECTION = re.compile(r"\.section\s+\.text\.(\S+?),|^\s*Function : (\S+)")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)([^;]*);")
LABEL = re.compile(r"^\s*(\.L_\S+):")
TARGET = re.compile(r"(\.L_\w+)")
MATRIX = ("HMMA", "IMMA", "QGMMA", "HGMMA", "IGMMA")


def assembled(ptx, sm, cubin):
    done = subprocess.run(["ptxas", "-v", f"-arch={sm}", "-o", cubin, ptx], capture_output=True, text=True)
    if done.returncode: sys.exit(f"ptxas: {done.stderr}")
    rows, name = {}, None
    for line in done.stderr.splitlines() + done.stdout.splitlines():
        if m := KERNEL.search(line): name = m[1]; rows[name] = {"registers": 0, "shared": 0, "spills": 0}
        elif name and (m := SPILLS.search(line)): rows[name]["spills"] = int(m[1]) + int(m[2])
        elif name and (m := USED.search(line)):
            rows[name]["registers"] = int(m[1])
            if s := re.search(r"(\d+) bytes smem", m[2]): rows[name]["shared"] = int(s[1])
    return rows


def functions(text):
    """nvdisasm's text -> {kernel: [(opcode, operands, label before)]}"""
    out, now, label = {}, None, None
    for line in text.splitlines():
        if m := SECTION.search(line): now = out.setdefault(m[1] or m[2], []); label = None
        elif m := LABEL.match(line): label = m[1]
        elif now is not None and (m := INSTRUCTION.search(line)): now.append((m[2], m[3], label)); label = None
    return out


def main_loop(code):
    """the smallest loop that multiplies matrices, as (first, last)"""
    labels = {label: i for i, (_, _, label) in enumerate(code) if label}
    loops = [(labels[t[1]], i) for i, (op, rest, _) in enumerate(code) if op.startswith("BRA") and (t := TARGET.search(rest)) and labels.get(t[1], i + 1) <= i]
    loops = [(a, z) for a, z in loops if any(op.startswith(MATRIX) for op, _, _ in code[a:z])]
    if not loops: return None, False
    first, last = min(loops, key=lambda l: l[1] - l[0])
    inner = any(first < labels.get(t[1], -1) <= i < last for i in range(first, last) if code[i][0].startswith("BRA") and (t := TARGET.search(code[i][1])))
    return (first, last), inner


def slots(code):
    span, inner = main_loop(code)
    if not span: return None
    loop = [op for op, _, _ in code[span[0]:span[1] + 1] if not op.startswith("NOP")]
    bars = [i for i, op in enumerate(loop) if op.startswith("BAR.SYNC")]
    staging = bars[1] - bars[0] + 1 if len(bars) == 2 else 0
    wide = [i for i, op in enumerate(loop) if op.startswith("LDG") and ".128" in op]
    weights = sum(".CONSTANT" in loop[i] for i in wide) or sum(not staging or not bars[0] < i < bars[1] for i in wide)
    return (len(loop), staging, weights, "+" if inner else "")


def main():
    words, options = sys.argv[1:], []
    if "--" in words: words, options = words[:words.index("--")], words[words.index("--") + 1:]
    ap = argparse.ArgumentParser()
    ap.add_argument("build"); ap.add_argument("cache"); ap.add_argument("models", nargs="+"); ap.add_argument("--sm", default="sm_90")
    ap.add_argument("--most", type=float); ap.add_argument("--disassembler", default=shutil.which("nvdisasm"))
    a = ap.parse_args(words)
    count, worst = 0, 0.0
    print("model\ttarget\tkernel\tregisters\tshared\tspilled\tslots a 512 bytes\tof these not staging")
    with tempfile.TemporaryDirectory() as folder:
        for path in a.models:
            for sm in a.sm.split(","):
                ptx, cubin = f"{folder}/m.ptx", f"{folder}/m.cubin"
                subprocess.run([os.path.join(a.build, "bin", "cmzc"), path, "-q", "--target", sm, "--cache-dir", a.cache, "-o", ptx, *options], check=True)
                rows = assembled(ptx, sm, cubin)
                listing = functions(open(ptx).read()) if not a.disassembler else functions(subprocess.run([a.disassembler, "-c", cubin], capture_output=True, text=True, check=True).stdout)
                text = open(ptx).read()
                for name, row in rows.items():
                    body = text.split(f".entry {name}(", 1)[1].split(".entry", 1)[0]
                    if "mma" not in body: continue
                    count += 1
                    s, each, rest = slots(listing.get(name, [])), "-", "-"
                    if s and s[2]:
                        each, rest = f"{s[0] / s[2]:.1f}{s[3]}", f"{(s[0] - s[1]) / s[2]:.1f}"
                        worst = max(worst, s[0] / s[2])
                    print(f"{os.path.basename(path)}\t{sm}\t{name}\t{row['registers']}\t{row['shared']}\t{row['spills']}\t{each}\t{rest}", flush=True)
    print(f"{count} matrix kernels")
    sys.exit(count == 0 or (a.most is not None and worst > a.most))


if __name__ == "__main__":
    main()
