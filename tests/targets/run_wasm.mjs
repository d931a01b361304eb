// run_wasm.mjs MODULE.wasm INPUT.npy OUTPUT.npy - runs a model in a module made of wasm_module.c.
import { readFileSync, writeFileSync } from "node:fs";

const [module, from, to] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(module), {});
const { memory, take_input, run, output, message } = instance.exports;
const bytes = readFileSync(from);
const at = take_input(bytes.length);
new Uint8Array(memory.buffer, at, bytes.length).set(bytes);
const written = run(bytes.length, 4 /* threads: there is one whatever is asked for */, 2);
if (written < 0) {
  const text = Buffer.from(memory.buffer, message());
  console.error(`run: ${written}: ${text.subarray(0, text.indexOf(0)).toString()}`);
  process.exit(1);
}
writeFileSync(to, Buffer.from(memory.buffer, output(), written));
