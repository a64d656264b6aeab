import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { Effect } from "effect";
import { testFolder } from "../../data/_test_kit.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { readSafetensors, type TensorFile } from "../../data/formats/safetensors.ts";
import { writeTorch } from "../../data/formats/torch/write.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { lossScale } from "../optim/loss_scale.ts";
import { learningRate, planSchedule, teacherMomentum } from "../optim/schedule.ts";
import { checkpointPieces, saveCheckpoint } from "../run/checkpoint_file.ts";
import { initialState } from "../run/initial_state.ts";
import { withLossScaleOf } from "../run/resume.ts";
import { fileTensor, type StateTensor, type StateValues } from "../run/state_layout.ts";
import { verifyStep } from "../verify/step_recording.ts";
import { type Config, configure } from "./config.ts";
import { publishedContents } from "./published.ts";
import { startingPoint } from "./resume.ts";
import { stepGraph } from "./step_graph.ts";
import { PRETRAIN, type PretrainMeta } from "./task.ts";

const recordingOf = (name: string) =>
  readSafetensors(
    Deno.readFileSync(new URL(`../../testdata/steps/${name}.safetensors`, import.meta.url)),
    name,
  );

/** The options of a recorded run, in our words. */
const recordedConfig = ({ metadata }: TensorFile) => {
  const recorded = JSON.parse(metadata.config);
  const options = {
    ...{ arch: recorded.arch, width: recorded.width, imageSize: recorded.image_size },
    ...{ dimHidden: recorded.dim_hidden, dimOut: recorded.dim_out, numPrototypes: recorded.num_prototypes },
    ...{
      batchSize: recorded.batch * recorded.world,
      baseLr: recorded.base_lr,
      optimizer: recorded.optimizer,
    },
    ...{ weightDecay: recorded.weight_decay, momentum: recorded.momentum, epochs: recorded.epochs },
    ...{ warmupEpoch: recorded.warmup_epoch, warmupMultiplier: recorded.warmup_multiplier },
    ...{ teacherMomentum: recorded.teacher_momentum },
  };
  const config: Config = { ...Effect.runSync(configure(null)), ...options };
  return { config, instances: recorded.num_instances as number, startEpoch: recorded.start_epoch as number };
};

const recordedState = ({ tensors }: TensorFile): Map<string, StateTensor> =>
  new Map(
    [...tensors].filter(([name]) => name.startsWith("init/")).map(([name, { shape, data }]) => [
      name.slice("init/".length),
      { shape, data: Float32Array.from(data as ArrayLike<number | bigint>, Number) },
    ]),
  );

/** A file as the published code saves it. */
const writePublished = (file: string, meta: PretrainMeta, values: StateValues) => {
  const tensors = new Map(
    [...values].map(([name, tensor]): [string, FileTensor] => [name, fileTensor(name, tensor)]),
  );
  Deno.writeFileSync(file, Buffer.concat(writeTorch(publishedContents(meta, tensors))));
};

/** Where a run with these options begins. */
const begin = Effect.fnUntraced(function* (config: Config, instances: number) {
  const { traits } = yield* Gpu;
  const { state } = stepGraph(config, traits);
  const schedule = planSchedule({ ...config, world: 1, instances });
  return yield* startingPoint({ config, state, schedule, instances });
});

gpuTest(
  "startingPoint() goes on from a published checkpoint at the recorded step, rate and momentum",
  function* () {
    const recording = yield* recordingOf("resnet50_sgd_first");
    const { config, instances, startEpoch } = recordedConfig(recording);
    const schedule = planSchedule({ ...config, world: 1, instances });
    const file = join(yield* testFolder, "ckpt.pth");
    const step = (startEpoch - 1) * schedule.stepsPerEpoch;
    writePublished(file, { step, teacherCounter: 0, instances, config }, recordedState(recording));

    const start = yield* begin({ ...config, resume: file }, instances);
    const [{ lr, ema_k, ema_momentum }] = JSON.parse(recording.metadata.steps);
    assert.equal(start.step, step);
    assert.equal(start.step + start.teacherStepOffset, ema_k);
    assert.ok(Math.abs(learningRate(start.step, schedule) / lr - 1) < 1e-12);
    assert.ok(Math.abs(teacherMomentum(ema_k, schedule) - ema_momentum) < 1e-14);
    assert.deepEqual(start.notes, []);
    const { rows } = yield* verifyStep(recording, "resumed", { step: 0, values: start.values });
    for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
  },
);

/**
 * The state after the first step of a recording of LARS, in double precision from recorded numbers: parameters and
 * velocities from recorded gradients, the teacher from the student, the centre from recorded scores. The statistics are
 * not recorded, and the next step does not depend on them: those of `computed` are taken.
 */
const afterFirstStep = (
  { tensors, metadata }: TensorFile,
  computed: ReadonlyMap<string, FileTensor>,
): StateValues => {
  const [{ lr, ema_momentum: m }] = JSON.parse(metadata.steps);
  const { world, weight_decay: decay, center_momentum: held, num_prototypes: K } = JSON.parse(
    metadata.config,
  );
  const before = recordedState({ tensors, metadata });
  const after = new Map<string, StateTensor>();
  const norm = (values: Float64Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  for (const [name, { shape, data }] of before) {
    const recorded = tensors.get(`step0/expect/grad/${name}`)?.data as Float32Array | undefined;
    const student = before.get(name.replace(/^(\w+)_k\./, "$1_q."))!.data;
    if (/running|tracked/.test(name)) {
      const values = Float32Array.from(
        computed.get(`step0/expect/after/${name}`)!.data as Float32Array,
        Number,
      );
      after.set(name, { shape, data: values });
    } else if (name === "center") {
      const sums = new Float64Array(K);
      let places = 0;
      for (let rank = 0; rank < world; rank++) {
        for (const view of [1, 2]) {
          const scores = tensors.get(`step0/rank${rank}/expect/score_k${view}`)!; // [B, K, h, w]
          const positions = scores.shape[2] * scores.shape[3];
          (scores.data as Float32Array).forEach((value, i) => sums[Math.floor(i / positions) % K] += value);
          places += scores.shape[0] * positions;
        }
      }
      after.set(name, { shape, data: data.map((value, k) => held * value + (1 - held) * sums[k] / places) });
    } else if (recorded === undefined) {
      after.set(name, { shape, data: data.map((value, i) => m * value + (1 - m) * student[i]) });
    } else {
      const slope = Float64Array.from(
        recorded,
        (value, i) => shape.length > 1 ? value + decay * data[i] : value,
      );
      const [weights, slopes] = [norm(Float64Array.from(data)), norm(slope)];
      const ratio = shape.length > 1 && weights * slopes > 0 ? 0.001 * weights / slopes : 1;
      const velocity = slope.map((value) => ratio * value);
      after.set(name, { shape, data: data.map((value, i) => value - lr * velocity[i]) });
      after.set(`optimizer.${name}`, { shape, data: Float32Array.from(velocity) });
    }
  }
  return after;
};

gpuTest(
  "a published checkpoint with velocities, and one more recorded step, give the recorded numbers",
  function* () {
    const recording = yield* recordingOf("resnet18_world2");
    const { config, instances } = recordedConfig(recording);
    const { outputs } = yield* verifyStep(recording, "whole");
    const file = join(yield* testFolder, "ckpt.pth");
    const meta: PretrainMeta = { step: 4, teacherCounter: 4, instances, config };
    writePublished(file, meta, afterFirstStep(recording, outputs));

    const start = yield* begin({ ...config, resume: file }, instances);
    const { rows } = yield* verifyStep(recording, "resumed", { step: 1, values: start.values });
    assert.equal(rows.length, 7); // all but gradients of parameters, recorded of the first step alone
    for (const row of rows) assert.ok(row.holds, `${row.group}: ${row.worst} (${row.note})`);
  },
);

const small = (change: Partial<Config> = {}): Config => ({
  ...Effect.runSync(configure(null)),
  ...{
    arch: "resnet18",
    width: 4,
    imageSize: 32,
    dimHidden: 8,
    dimOut: 4,
    numPrototypes: 6,
    batchSize: 4,
    epochs: 10,
  },
  ...change,
} as Config);

/** A saved checkpoint of the small run, with 40 pictures after two epochs. */
const saved = Effect.fnUntraced(function* (folder: string) {
  const config = small({ seed: 3 });
  const { state } = stepGraph(config, (yield* Gpu).traits);
  const meta: PretrainMeta = { step: 20, teacherCounter: 20, instances: 40, config };
  const tensors = initialState(state, 3);
  const file = yield* saveCheckpoint(folder, PRETRAIN, { meta, tensors });
  return { file, meta, tensors };
});

gpuTest(
  "startingPoint() says what differs, and keeps its place where an epoch has other steps",
  function* () {
    const { file } = yield* saved(yield* testFolder);
    const same = yield* begin(small({ seed: 3, resume: file, printFreq: 1 }), 40);
    assert.deepEqual(same.notes, []);
    const changed = yield* begin(small({ seed: 4, batchSize: 8, resume: file }), 48);
    assert.equal(changed.step, 12); // two epochs of six steps
    assert.match(
      changed.notes.join(),
      /--batch-size 4 is 8 now; --seed 3 is 4 now; 40 pictures are 48 now; an epoch has 6/,
    );
  },
);

gpuTest("startingPoint() refuses what cannot go on, and says what can", function* () {
  const folder = yield* testFolder;
  const { file, meta, tensors } = yield* saved(folder);
  const refusal = (config: Config) => Effect.map(Effect.flip(begin(config, 40)), ({ message }) => message);
  assert.match(
    yield* refusal(small({ resume: file, optimizer: "sgd" })),
    /is lars.*--optimizer lars.*--init/,
  );
  assert.match(
    yield* refusal(small({ resume: file, width: 8 })),
    /another architecture.*conv1\.weight is \[4/,
  );

  const encoder = join(folder, "encoder.pth");
  const own = [...tensors].filter(([name]) => name.startsWith("encoder_k."))
    .map(([name, tensor]) => [name.slice("encoder_k.".length), fileTensor(name, tensor)] as const);
  Deno.writeFileSync(encoder, Buffer.concat(writeTorch(new Map(own))));
  assert.match(yield* refusal(small({ resume: encoder })), /no optimiser and no step: start .* --init/);

  // A newer one that is damaged: which tensor, where, and which other is good.
  const pieces = yield* checkpointPieces(PRETRAIN, { meta: { ...meta, step: 30 }, tensors });
  const bytes = Buffer.concat(pieces);
  bytes[bytes.length - 5] ^= 1;
  const damaged = join(folder, "checkpoints", "step_000030.safetensors");
  Deno.writeFileSync(damaged, bytes);
  assert.match(
    yield* refusal(small({ resume: damaged })),
    /tensor "[\w.]+" \(bytes \d+ to \d+\) does not match.*newest good one there is ".*step_000020\.safetensors"/,
  );
  Deno.writeFileSync(damaged, bytes.subarray(0, bytes.length / 2));
  assert.match(
    yield* refusal(small({ resume: damaged })),
    /tensor "[\w.]+" ends at byte .* cut short .*newest good one there is ".*step_000020\.safetensors"/,
  );
});

gpuTest("startingPoint() takes weights alone: an encoder for both networks, or all that fits", function* () {
  const folder = yield* testFolder;
  const { file, tensors } = yield* saved(folder);
  const encoder = join(folder, "encoder.pth");
  const own = [...tensors].filter(([name]) => /^encoder_k\..*(weight|bias|mean|var)$/.test(name)) // no counters
    .map(([name, tensor]) =>
      [`module.${name.slice("encoder_k.".length)}`, fileTensor(name, tensor)] as const
    );
  const classifier: FileTensor = { dtype: "F32", shape: [2, 32], data: new Float32Array(64) };
  Deno.writeFileSync(
    encoder,
    Buffer.concat(writeTorch(new Map([["state_dict", new Map([...own, ["module.fc.weight", classifier]])]]))),
  );
  const fresh = initialState(stepGraph(small(), (yield* Gpu).traits).state, 0);
  const bits = (values: StateValues, name: string) => values.get(name)!.data;

  const alone = yield* begin(small({ init: encoder }), 40);
  assert.equal(alone.step, 0);
  for (const side of ["q", "k"]) {
    const name = `encoder_${side}.layer3.0.conv1.weight`;
    assert.deepEqual(bits(alone.values, name), bits(tensors, name));
    const head = `projector_${side}.mlp.0.weight`;
    assert.deepEqual(bits(alone.values, head), bits(fresh, head));
  }
  assert.match(alone.notes[0], /: encoder; .* starts anew: projector, grouping, predictor_slot, center$/);

  const other = yield* begin(small({ init: file, numPrototypes: 7 }), 40);
  assert.deepEqual(bits(other.values, "projector_q.mlp.0.weight"), bits(tensors, "projector_q.mlp.0.weight"));
  assert.match(other.notes[0], /: encoder, projector, predictor_slot; .* starts anew: grouping, center$/);
  assert.ok(
    [...other.values].every(([name, { data }]) =>
      !name.startsWith("optimizer.") || data.every((x) => x === 0)
    ),
  );

  const wrong = yield* Effect.flip(begin(small({ init: file, width: 8 }), 40));
  assert.match(
    wrong.message,
    /^Cannot start from ".*": its encoder is not this run's .*conv1\.weight is \[4, 3, 7, 7\]/,
  );
});

Deno.test("withLossScaleOf() starts a scale that a checkpoint lacks, and drops one that the run does not want", () => {
  const half = new StateBuilder();
  lossScale(half);
  const full = new StateBuilder();
  full.declare("encoder_q.b", {
    role: "trained",
    shape: [5],
    storage: "same",
    init: { kind: "constant", value: 1 },
  });
  const checkpoint = new Map(initialState(full, 0));
  const grown = withLossScaleOf(half, checkpoint);
  assert.deepEqual(
    [...grown].filter(([name]) => name.startsWith("scaler.")).map(([name, { data }]) => [name, data[0]]),
    [["scaler.scale", 65536], ["scaler.growth_tracker", 0], ["scaler.skipped", 0]],
  );
  assert.deepEqual(withLossScaleOf(full, grown), checkpoint);
});
