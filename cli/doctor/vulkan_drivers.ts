/** The Vulkan drivers that Linux offers to WebGPU. */
import { join } from "node:path";
import type { Driver } from "./diagnosis.ts";

/** Reads the manifests of drivers, such as `radeon_icd.x86_64.json`; leaves out those that cannot be read. */
export const vulkanDrivers = (
  folders: readonly string[] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"],
): readonly Driver[] =>
  folders.flatMap((folder) =>
    orNone(() => [...Deno.readDirSync(folder)]).flatMap(({ name }) => {
      const [, driver] = name.match(/^(.+?)(?:_vk)?_icd\b.*\.json$/) ?? [];
      if (driver === undefined) return [];
      return orNone(() => {
        const { ICD } = JSON.parse(Deno.readTextFileSync(join(folder, name)));
        return [{ name: driver, vulkan: ICD.api_version as string }];
      });
    })
  ).sort((a, b) => a.name < b.name ? -1 : 1);

const orNone = <A>(read: () => A[]): A[] => {
  try {
    return read();
  } catch {
    return [];
  }
};
