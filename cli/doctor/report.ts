import type { AdapterReport } from "../../ops/graph/lowering.ts";
import type { VulkanDevice } from "../../pipeline/ranks/vulkan.ts";
import { writtenBytes } from "../../pipeline/run/bytes.ts";
import type { StepPlan } from "../../pipeline/run/step_plan.ts";
import { bold, dim, green, red, yellow } from "../terminal/color.ts";
import type { Facts, Finding } from "./diagnosis.ts";
import type { RankSpeed } from "./rank_speed.ts";

/** The page of `slotcon doctor`: adapter, step, memory and findings. */
export const doctorReport = (facts: Facts, findings: readonly Finding[]): string => {
  const { config, adapter, plan } = facts;
  const rows: (readonly [string, string])[] = [
    ...("failure" in adapter ? [] : adapterRows(adapter)),
    ...facts.devices.length < 2 ? [] : deviceRows(facts.devices),
    [
      "step",
      `${facts.words}, batch ${config.batchSize}` +
      `${config.ranks > 1 ? ` on each of ${config.ranks} ranks` : ""}, ${config.precision ?? "f32"}`,
    ],
    ...memoryRows(plan),
    ...facts.ranks === null || "failure" in facts.ranks ? [] : rankRows(facts.ranks),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return [
    ...rows.map(([name, text]) => `${bold(name.padEnd(width))}  ${text}`),
    "",
    ...findings.map(({ level, says, mend }) =>
      `${MARKS[level]}  ${says}${mend === undefined ? "" : dim(` → ${mend}`)}`
    ),
  ].join("\n");
};

const MARKS = { ok: green("ok     "), warning: yellow("warning"), problem: red("problem") };

const adapterRows = ({ description, backend, software, limits, features }: AdapterReport) => {
  const used = ["shader-f16", "subgroups", "timestamp-query"].filter((feature) => features.includes(feature));
  return [
    ["adapter", `${description}${software ? " (a CPU)" : ""}, ${backend}`],
    [
      "limits",
      `${writtenBytes(limits.maxBufferSize)} a buffer, ${
        writtenBytes(limits.maxStorageBufferBindingSize)
      } a binding, ` +
      `${limits.maxStorageBuffersPerShaderStage} buffers a shader, ` +
      `${limits.maxComputeWorkgroupStorageSize / 1024} KiB shared by a workgroup`,
    ],
    ["features", used.join(", ") || "none of shader-f16, subgroups, timestamp-query"],
  ] as const;
};

/** The devices that --device can name. */
const deviceRows = (devices: readonly VulkanDevice[]) =>
  devices.map(({ name, pci }, i) =>
    [i === 0 ? "adapters" : "", `${i} ${name}${pci === null ? "" : ` (${pci})`}`] as const
  );

const rankRows = ({ ranks }: RankSpeed) =>
  ranks.map(({ host, adapter }, rank) =>
    [rank === 0 ? "ranks" : "", `${rank} on ${host}: ${adapter}`] as const
  );

const memoryRows = ({ groups, peakBytes, reservedBytes, besides, largest }: StepPlan) => {
  const amount = (name: string, bytes: number) => `${name.padEnd(11)} ${writtenBytes(bytes).padStart(9)}`;
  const bar = (bytes: number) => "█".repeat(Math.round(24 * bytes / peakBytes));
  const spare = Math.round(100 * (reservedBytes / peakBytes - 1));
  return [
    ...Object.entries(groups).map(([group, bytes], i) =>
      [i === 0 ? "memory" : "", `${amount(group, bytes)}  ${bar(bytes)}`] as const
    ),
    ["", amount("at the peak", peakBytes)],
    ["", `${amount("reserved", reservedBytes)}  ${spare} % more, for gaps between tensors`],
    ...Object.entries(besides).map(([use, bytes]) =>
      ["", `${amount(use, bytes)}  besides the step`] as const
    ),
    ...largest.slice(0, 3).map(({ tensor, bytes, count }, i) =>
      [
        i === 0 ? "largest" : "",
        `${amount("", bytes)}  ${tensor}${count > 1 ? `, ${count} times` : ""}`,
      ] as const
    ),
  ] as const;
};
