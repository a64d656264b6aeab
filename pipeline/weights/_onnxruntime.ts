/**
 * Runs an ONNX file in ONNX Runtime, for tests: a process of its own, since the runtime is not a dependency of the
 * project.
 *
 *     deno run ... _onnxruntime.ts SPECIFIER [MODEL {INPUT SHAPE OUTPUT}...]
 *
 * SPECIFIER is the module to import the runtime from; without a model the exit status says whether it loads. INPUT is
 * a file of raw f32, SHAPE its sizes separated by commas, OUTPUT the file to write. Prints the shapes of the outputs,
 * one a line.
 */
const [specifier, model, ...runs] = Deno.args;
const { default: ort } = await import(specifier);
if (model !== undefined) {
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 2 });
  for (let i = 0; i < runs.length; i += 3) {
    const [input, shape, output] = runs.slice(i, i + 3);
    const values = new Float32Array(Deno.readFileSync(input).buffer);
    const images = new ort.Tensor("float32", values, shape.split(",").map(Number));
    const { [session.outputNames[0]]: result } = await session.run({ images });
    Deno.writeFileSync(
      output,
      new Uint8Array(result.data.buffer, result.data.byteOffset, result.data.byteLength),
    );
    console.log(result.dims.join());
  }
}
