import assert from "node:assert/strict";
import { inTestFolder } from "../../data/_test_kit.ts";
import { vulkanDrivers } from "./vulkan_drivers.ts";

Deno.test(
  "vulkanDrivers() reads names and versions of drivers as distributions write them, and leaves out the rest",
  inTestFolder((folder) => {
    const files = {
      "radeon_icd.x86_64.json": '{"ICD": {"api_version": "1.4.305", "library_path": "x.so"}}',
      "gfxstream_vk_icd.json": '{"ICD": {"api_version": "1.1.305", "library_path": "x.so"}}',
      "nvidia_icd.json": '{"ICD": {"api_version": "1.3.242", "library_path": "x.so"}}',
      "broken_icd.json": "{",
      "README": "",
    };
    for (const [name, text] of Object.entries(files)) Deno.writeTextFileSync(`${folder}/${name}`, text);
    assert.deepEqual(vulkanDrivers([folder, `${folder}/none`]), [
      { name: "gfxstream", vulkan: "1.1.305" },
      { name: "nvidia", vulkan: "1.3.242" },
      { name: "radeon", vulkan: "1.4.305" },
    ]);
  }),
);
