/** Finds what keeps a run from working on this machine, and how to mend it, from facts that `slotcon doctor` gathers. */
import type { AdapterReport } from "../../ops/graph/lowering.ts";
import type { VulkanDevice } from "../../pipeline/ranks/vulkan.ts";
import { writtenBytes } from "../../pipeline/run/bytes.ts";
import type { RunConfig } from "../../pipeline/run/options.ts";
import type { StepPlan } from "../../pipeline/run/step_plan.ts";
import type { RankSpeed } from "./rank_speed.ts";

export interface Facts extends StepFacts {
  /** The options that say how large the step is, in words. */
  readonly words: string;
  readonly drivers: readonly Driver[];
  /** The devices that Vulkan offers, in the order of their numbers for --device. */
  readonly devices: readonly VulkanDevice[];
  /** Images of 640 × 480 pixels that all workers together decode and crop in a second. */
  readonly decodedPerSecond: number | Failure;
  readonly versions: Readonly<Record<string, string>>;
  readonly output: "writable" | "absent" | Failure;
  /** What exchanges between ranks cost; null where the run has one rank. */
  readonly ranks: RankSpeed | Failure | null;
  /** Images in the data set; null where none was named. */
  readonly images: number | Failure | null;
}

/** The facts that decide whether the step can run. */
export interface StepFacts {
  readonly config: RunConfig;
  readonly adapter: AdapterReport | Failure;
  readonly plan: StepPlan;
  /** Free memory of the host, in bytes. */
  readonly freeMemory: number;
  /** A smaller batch size with which the step can run; null where the configured one can, or none. */
  readonly smallerBatch: number | null;
}

/** Something that failed, and what to do about it. */
export interface Failure {
  readonly failure: string;
  readonly remedy: string;
}

/** A Vulkan driver that is installed, and the version of Vulkan that it speaks. */
export interface Driver {
  readonly name: string;
  readonly vulkan: string;
}

export interface Finding {
  readonly level: "ok" | "warning" | "problem"; // a run cannot start where there is a problem
  readonly says: string;
  readonly mend?: string;
}

export const diagnose = (facts: Facts): readonly Finding[] => [
  ...adapterFindings(facts),
  ...stepFindings(facts),
  decodeFinding(facts),
  ...rankFindings(facts),
  ...imagesFindings(facts),
  outputFinding(facts),
  versionFinding(facts),
];

/** The version of Vulkan from Mesa 23 on; the software driver of older versions is several times slower. */
const LATER_MESA = [1, 3, 240];

const adapterFindings = ({ adapter, drivers, config }: Facts): readonly Finding[] => {
  if ("failure" in adapter) return [problem(adapter)];
  const isNative = config.device.startsWith("native");
  const webgpu = isNative ? "Deno's WebGPU" : "Dawn";
  const found = `${webgpu} runs on ${adapter.description}`;
  if (!adapter.software) return [{ level: "ok", says: found }];
  const names = drivers.map(({ name }) => name).join(", ");
  const findings: Finding[] = [{
    level: "warning",
    says: `${found}, a CPU: fine for trying things out, far too slow for real runs`,
    mend: `if there is a GPU, install its Vulkan driver (installed: ${names || "none that is known"})` +
      (isNative ? "; on a CPU --device dawn takes less time" : ""),
  }];
  const old = drivers.find(({ name, vulkan }) => name === "lvp" && isBefore(vulkan, LATER_MESA));
  if (old !== undefined) {
    findings.push({
      level: "warning",
      says: `its driver is old (Vulkan ${old.vulkan}) and several times slower than a current one`,
      mend: "install a newer Mesa; on Debian 12: apt install -t bookworm-backports mesa-vulkan-drivers",
    });
  }
  return findings;
};

/** Batches in the host's memory: two for each worker, one being packed and one ready, and two that the run uses. */
const batchesOnHost = (workers: number) => 2 * workers + 2;

/** Whether the step fits the limits of the adapter and, where that is a CPU, the memory of this machine. */
export const stepFindings = (facts: StepFacts): readonly Finding[] => {
  const { adapter, plan, config, freeMemory, smallerBatch } = facts;
  if ("failure" in adapter) return [];
  const fits = smallerBatch === null ? [] : [`--batch-size ${smallerBatch * config.ranks} fits`];
  const { reservedBytes, besides, recomputed, groups, sliced, refusal } = plan;
  const binding = writtenBytes(adapter.limits.maxStorageBufferBindingSize);
  const withinLimits: Finding = refusal !== null
    ? { level: "problem", says: refusal, ...mendBy(fits) }
    : sliced === 0
    ? { level: "ok", says: "the step fits the adapter's limits" }
    : {
      level: "ok",
      says: `the step fits the adapter's limits; ${sliced} buffers are bound in slices of ${binding}`,
    };

  const onDevice = Object.values(besides).reduce((sum, bytes) => sum + bytes, reservedBytes);
  const onHost = adapter.software ? batchesOnHost(config.numWorkers) * groups.batch : 0;
  const taken = onDevice + onHost;
  const says = adapter.software
    ? `a run takes ${writtenBytes(taken)} of this machine's memory, ${writtenBytes(freeMemory)} are free`
    : `a run takes ${writtenBytes(taken)} of the GPU's memory; how much there is, WebGPU does not tell`;
  // A software adapter does not refuse to allocate: the system kills a run that takes more memory than there is.
  const mayRecompute = config.memoryLimit === null && onDevice < 2 * (freeMemory - onHost);
  const trade = mayRecompute
    ? [`--memory-limit ${writtenBytes(freeMemory - onHost).replace(" ", "")} trades time for it`]
    : [];
  const withinMemory: Finding = adapter.software && taken > freeMemory
    ? { level: "problem", says, ...mendBy([...trade, ...fits]) }
    : { level: "ok", says };
  if (recomputed.tensors === 0 || refusal !== null) return [withinLimits, withinMemory];
  return [withinLimits, withinMemory, {
    level: "ok",
    says:
      `${writtenBytes(recomputed.bytes)} are computed twice to stay within ${config.memoryLimit}: about ` +
      `${(100 * recomputed.work).toPrecision(2)} % more work`,
  }];
};

const mendBy = (remedies: readonly string[]) => remedies.length === 0 ? {} : { mend: remedies.join("; ") };

const decodeFinding = ({ decodedPerSecond, config }: Facts): Finding => {
  if (typeof decodedPerSecond !== "number") return problem(decodedPerSecond);
  const { batchSize, numWorkers } = config;
  const threads = numWorkers === 1 ? "1 thread" : `${numWorkers} threads`;
  const rate = decodedPerSecond.toPrecision(decodedPerSecond < 100 ? 2 : 3);
  return {
    level: "ok",
    says: `${rate} pictures (640 × 480) a second by ${threads}: a batch of ${batchSize} takes ${
      (batchSize / decodedPerSecond).toPrecision(2)
    } s`,
  };
};

const rankFindings = ({ ranks }: Facts): readonly Finding[] => {
  if (ranks === null) return [];
  if ("failure" in ranks) return [problem(ranks)];
  const { small, large, step } = ranks;
  const findings: Finding[] = [{
    level: "ok",
    says: `${ranks.ranks.length} ranks sum 2 KiB in ${writtenSeconds(small)} and 95 MiB in ${
      writtenSeconds(large)
    }`,
  }];
  if (step === null) return findings;
  const { seconds, syncSeconds, stops, exchangedBytes } = step;
  const share = Math.round(100 * syncSeconds / seconds);
  findings.push({
    level: share <= 25 ? "ok" : "warning",
    says:
      `a step takes ${writtenSeconds(seconds)}, ${share} % of it to exchange ${
        writtenBytes(exchangedBytes)
      } ` +
      `between the ranks, for which it stops ${stops} times`,
    ...share <= 25 ? {} : { mend: "a larger --batch-size a rank, or fewer ranks" },
  });
  return findings;
};

const imagesFindings = ({ images, config }: Facts): readonly Finding[] => {
  if (images === null) return [];
  if (typeof images !== "number") return [problem(images)];
  const steps = Math.floor(images / (config.batchSize * config.ranks));
  const says = `${images} pictures, ${steps} steps an epoch`;
  if (steps > 0) return [{ level: "ok", says }];
  return [{ level: "problem", says, mend: `--batch-size ${images} or less` }];
};

const outputFinding = ({ output, config }: Facts): Finding => {
  if (typeof output !== "string") return problem(output);
  const state = output === "writable" ? "can be written" : "does not exist yet and will be made";
  return { level: "ok", says: `the output folder "${config.outputDir}" ${state}` };
};

const versionFinding = ({ versions }: Facts): Finding => {
  const says = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
  return versions.Deno.startsWith("2.9.") ? { level: "ok", says } : {
    level: "warning",
    says,
    mend: "the project is tested with Deno 2.9: cli/slotcon gets it where it is missing",
  };
};

const problem = ({ failure, remedy }: Failure): Finding => ({
  level: "problem",
  says: failure,
  mend: remedy,
});

const isBefore = (version: string, other: readonly number[]): boolean => {
  const parts = version.split(".").map(Number);
  const at = other.findIndex((part, i) => parts[i] !== part);
  return at >= 0 && parts[at] < other[at];
};

const writtenSeconds = (seconds: number): string =>
  seconds < 1e-3
    ? `${Math.round(1e6 * seconds)} µs`
    : seconds < 1
    ? `${Number((1e3 * seconds).toPrecision(2))} ms`
    : `${seconds.toPrecision(3)} s`;
