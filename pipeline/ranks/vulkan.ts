/**
 * The devices that Vulkan offers to this process, with details that WebGPU lacks: which piece of hardware each of them
 * is.
 */
import { join } from "node:path";
import { type Environment, libraryFolders, openLibrary } from "./shared_library.ts";

/** The kind of a device. */
export type DeviceKind = "discrete" | "integrated" | "virtual" | "other" | "cpu";

/** A device of Vulkan. */
export interface VulkanDevice {
  /** Its name. */
  readonly name: string;
  /** Its kind. */
  readonly kind: DeviceKind;
  /** The number of its vendor, given by PCI or by Khronos. */
  readonly vendor: number;
  /** The vendor's number for it. */
  readonly device: number;
  /** 32 hexadecimal digits, the same for the same hardware and driver in all processes. */
  readonly uuid: string;
  /** Its PCI address, "0000:65:00.0"; null where the driver does not report it. */
  readonly pci: string | null;
}

/** Environment variables that choose one of several devices: see device.ts. */
export const CHOOSING: readonly string[] = ["DRI_PRIME", "MESA_VK_DEVICE_SELECT", "VK_LOADER_DEVICE_SELECT"];

/** These variables, and others that are set with them. */
export const deviceVariables: readonly string[] = [
  ...CHOOSING,
  ...["MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE", "VK_DRIVER_FILES", "VK_ICD_FILENAMES"],
];

/** The paths at which Vulkan's loader can be. */
export const vulkanLibraries = (env: Environment): readonly string[] => [
  ...new Set(libraryFolders(env).map((folder) => join(folder, "libvulkan.so.1"))),
];

const SYMBOLS = {
  vkCreateInstance: { parameters: ["buffer", "pointer", "buffer"], result: "i32" },
  vkDestroyInstance: { parameters: ["u64", "pointer"], result: "void" },
  vkEnumeratePhysicalDevices: { parameters: ["u64", "buffer", "buffer"], result: "i32" },
  vkEnumerateDeviceExtensionProperties: { parameters: ["u64", "pointer", "buffer", "buffer"], result: "i32" },
  vkGetPhysicalDeviceProperties2: { parameters: ["u64", "buffer"], result: "void" },
  memmove: { parameters: ["buffer", "buffer", "usize"], result: "usize" }, // of the C library: returns an address
} as const;

/**
 * The devices that the environment variables of now admit, in the order in which WebGPU prefers them: by kind, then as
 * Vulkan lists them. Null where there is no Vulkan, as on systems other than Linux.
 */
export const vulkanDevices = (
  env: Environment = (name) => Deno.env.get(name),
): readonly VulkanDevice[] | null => {
  if (Deno.build.os !== "linux") return null;
  const opened = openLibrary(vulkanLibraries(env), SYMBOLS);
  if (opened === null || "failure" in opened) return null;
  const vk = opened.functions;

  const instance = new BigUint64Array(1);
  if (vk.vkCreateInstance(instanceInfo(vk), null, instance) !== 0) return [];
  try {
    const count = new Uint32Array(1);
    vk.vkEnumeratePhysicalDevices(instance[0], count, null);
    const handles = new BigUint64Array(count[0]);
    vk.vkEnumeratePhysicalDevices(instance[0], count, handles);
    const devices = [...handles.subarray(0, count[0])].map((handle) => {
      const found = properties(vk, extensions(vk, handle).includes("VK_EXT_pci_bus_info"));
      vk.vkGetPhysicalDeviceProperties2(handle, found.all);
      return described(found);
    });
    return devices.sort((a, b) => PREFERENCE.indexOf(a.kind) - PREFERENCE.indexOf(b.kind));
  } finally {
    vk.vkDestroyInstance(instance[0], null);
  }
};

type Vulkan = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

const extensions = (vk: Vulkan, device: bigint): string[] => {
  const count = new Uint32Array(1);
  vk.vkEnumerateDeviceExtensionProperties(device, null, count, null);
  const bytes = new Uint8Array(260 * count[0]); // VkExtensionProperties: a name of 256 bytes, a version
  vk.vkEnumerateDeviceExtensionProperties(device, null, count, bytes);
  return Array.from({ length: count[0] }, (_, i) => text(bytes.subarray(260 * i, 260 * i + 256)));
};

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));

/** VkPhysicalDeviceType, and wgpu's order for adapters of high performance. */
const KINDS: readonly DeviceKind[] = ["other", "integrated", "discrete", "virtual", "cpu"];
const PREFERENCE: readonly DeviceKind[] = ["discrete", "integrated", "other", "virtual", "cpu"];

// Below are structures of vulkan_core.h with the layout of 64-bit systems: sType at 0, pNext at 8, members from 16 on.

const structure = (type: number, bytes: number) => {
  const view = new DataView(new ArrayBuffer(bytes));
  view.setUint32(0, type, true);
  return view;
};

/** Writes the address of a structure into another one. */
const point = (vk: Vulkan, from: DataView<ArrayBuffer>, at: number, to: DataView<ArrayBuffer>) =>
  from.setBigUint64(at, vk.memmove(to, to, 0n), true);

const application = structure(0, 48); // VkApplicationInfo
application.setUint32(44, (1 << 22) | (1 << 12), true); // apiVersion: Vulkan 1.1

/** VkInstanceCreateInfo, without layers or extensions. */
const instanceInfo = (vk: Vulkan) => {
  const info = structure(1, 64);
  point(vk, info, 24, application);
  return info;
};

/**
 * VkPhysicalDeviceProperties2, followed by VkPhysicalDeviceIDProperties and VkPhysicalDevicePCIBusInfoPropertiesEXT.
 */
const properties = (vk: Vulkan, withBus: boolean) => {
  const all = structure(1000059001, 1024), identity = structure(1000071004, 64);
  const bus = withBus ? structure(1000212000, 32) : null;
  point(vk, all, 8, identity);
  if (bus !== null) point(vk, identity, 8, bus);
  return { all, identity, bus };
};

const described = ({ all, identity, bus }: ReturnType<typeof properties>): VulkanDevice => ({
  name: text(new Uint8Array(all.buffer, 36, 256)),
  kind: KINDS[all.getUint32(32, true)] ?? "other",
  vendor: all.getUint32(24, true),
  device: all.getUint32(28, true),
  uuid: new Uint8Array(identity.buffer, 16, 16).toHex(),
  pci: bus === null ? null : pciAddress([16, 20, 24, 28].map((at) => bus.getUint32(at, true))),
});

const pciAddress = ([domain, bus, slot, part]: readonly number[]) => {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  return `${hex(domain, 4)}:${hex(bus, 2)}:${hex(slot, 2)}.${hex(part, 1)}`;
};
