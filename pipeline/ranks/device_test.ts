import assert from "node:assert/strict";
import { join } from "node:path";
import { mpiTest, runScript } from "./_test_mpi.ts";
import { deviceEnvironment, numbered, parseDevice } from "./device.ts";
import type { VulkanDevice } from "./vulkan.ts";

const exists = (path: string): boolean => {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
};

// Two drivers in software stand for two pieces of hardware: Mesa's, and the one that comes with Chromium.
const mesa = ["lvp_icd.json", `lvp_icd.${Deno.build.arch}.json`].map((name) =>
  `/usr/share/vulkan/icd.d/${name}`
)
  .find(exists);
const chromium = ["/usr/lib/chromium/vk_swiftshader_icd.json"].find(exists);
const layer = "/usr/share/vulkan/implicit_layer.d/VkLayer_MESA_device_select.json";
const missing = mesa !== undefined && chromium !== undefined && exists(layer)
  ? null
  : "there are no two drivers here, which mesa-vulkan-drivers and chromium bring";

const script = join(import.meta.dirname!, "_device_rank.ts");

mpiTest("rankGpu() gives each rank the driver that --device names for it", async () => {
  for (
    const [drivers, expected] of [[[mesa, chromium], [/llvmpipe/, /SwiftShader/]], [[chromium, mesa], [
      /SwiftShader/,
      /llvmpipe/,
    ]]] as const
  ) {
    const { code, err, found } = await runScript(2, script, [`native:${drivers.join()}`]);
    assert.equal(code, 0, err);
    assert.deepEqual(found.map(({ adapter }, rank) => expected[rank].test(adapter)), [true, true], err);
  }
}, missing);

mpiTest("rankGpu() gives each rank the adapter whose number --device names for it", async () => {
  const env = { VK_DRIVER_FILES: `${mesa}:${chromium}` };
  const straight = await runScript(2, script, ["native:0,1"], env);
  const crossed = await runScript(2, script, ["native:1,0"], env);
  assert.equal(straight.code + crossed.code, 0, straight.err + crossed.err);
  const [own, other] = straight.found.map(({ adapter }) => adapter);
  assert.notEqual(own, other);
  assert.deepEqual(crossed.found.map(({ adapter }) => adapter), [other, own]);
}, missing);

mpiTest("rankGpu() stops ranks that share an adapter, unless they may", async () => {
  const { code, err } = await runScript(2, script, ["native:0,0"]);
  assert.notEqual(code, 0);
  assert.match(
    err,
    /^Ranks 0 and 1 share an adapter of "[^"]+", .*: name one for each.*--allow-shared-device$/m,
  );
  const allowed = await runScript(2, script, ["native:0,0", "shared"]);
  assert.equal(allowed.code, 0, allowed.err);
  assert.equal(allowed.found.length, 2);
});

mpiTest("rankGpu() says which adapters there are where --device names another, or too few", async () => {
  const other = await runScript(2, script, ["native:7,0"]);
  assert.match(other.err, /^there is no adapter 7: there are 0 /m);
  const few = await runScript(2, script, ["native:0"]);
  assert.match(few.err, /^--device names 1 adapters, and this machine has more ranks than that/m);
});

const device = (name: string, kind: VulkanDevice["kind"], pci: string | null): VulkanDevice => (
  { name, kind, pci, vendor: 0x10de, device: 0x2330, uuid: name }
);

Deno.test("deviceEnvironment() names a GPU by where it is plugged in, counting GPUs of their own memory first", () => {
  const devices = [
    device("cpu", "cpu", null),
    device("b", "discrete", "0000:c1:00.0"),
    device("onboard", "integrated", "0000:00:02.0"),
    device("a", "discrete", "0000:41:00.0"),
  ];
  assert.deepEqual(numbered(devices).map(({ name }) => name), ["a", "b", "onboard", "cpu"]);
  const second = {
    variables: { DRI_PRIME: "pci-0000_c1_00_0!", MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE: "1" },
    device: devices[1],
  };
  for (const name of ["1", "0000:c1:00.0", "c1:00.0"]) {
    assert.deepEqual(deviceEnvironment(name, devices), second);
  }
  assert.deepEqual(deviceEnvironment("3", devices)?.variables, { MESA_VK_DEVICE_SELECT: "10de:2330!" });
  assert.equal(deviceEnvironment("4", devices), null);
});

Deno.test("parseDevice() tells the WebGPU from the adapters of the ranks", () => {
  assert.deepEqual(parseDevice("dawn"), { backend: "dawn", adapters: [] });
  assert.deepEqual(parseDevice("native:0,c1:00.0"), { backend: "native", adapters: ["0", "c1:00.0"] });
});
