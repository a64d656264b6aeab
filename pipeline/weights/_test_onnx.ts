/** What tests of ONNX files share: ONNX Runtime, which is no dependency of the project. */
import { fileURLToPath } from "node:url";
import { missingApart, scriptApart } from "../../data/_test_kit.ts";
import { gpuTest } from "../../ops/_test_kit.ts";

const RUNTIME = "npm:onnxruntime-node@1.30.0";

/** Runs the script `_onnxruntime.ts`. */
export const onnxRuntime = (...args: readonly string[]) =>
  scriptApart(
    fileURLToPath(new URL("_onnxruntime.ts", import.meta.url)),
    ["--allow-read", "--allow-write", "--allow-env", "--allow-ffi"],
    [RUNTIME, ...args],
  ).outputSync();

/** A test that is skipped, and says so, where ONNX Runtime is missing. */
export const runtimeTest: typeof gpuTest = onnxRuntime().success ? gpuTest : (name) =>
  Deno.test.ignore(
    `${name} (skipped: ${missingApart("onnxruntime-node", RUNTIME)})`,
    () => {},
  );

/** [N, H, W, C] as [N, C, H, W]. */
export const channelsFirst = (data: Float32Array, [, H, W, C]: readonly number[]): Float32Array =>
  Float32Array.from(data, (_, i) => {
    const pixel = i % (H * W), c = Math.floor(i / (H * W)) % C, n = Math.floor(i / (H * W * C));
    return data[(n * H * W + pixel) * C + c];
  });
