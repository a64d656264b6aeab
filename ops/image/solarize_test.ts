import { gpuTest } from "../_test_kit.ts";
import { assertEqualsRecorded } from "./_test_stages.ts";
import { solarize } from "./solarize.ts";

gpuTest("solarize() equals Pillow's bit for bit", function* () {
  yield* assertEqualsRecorded("solarize", solarize);
});
