import assert from "node:assert/strict";
import {
  learningRate,
  planSchedule,
  type ScheduleOptions,
  teacherCounter,
  teacherMomentum,
} from "./schedule.ts";

// Whole recorded runs are compared in pipeline/verify/schedule_recording_test.ts; these are the rules behind them.

const coco: ScheduleOptions = {
  epochs: 800,
  warmupEpoch: 5,
  warmupMultiplier: 100,
  baseLr: 1,
  batchSize: 512,
  world: 8,
  instances: 118_287,
  teacherMomentum: 0.99,
};

Deno.test("learningRate() starts at peak / multiplier, peaks after the warm-up and ends at 1e-6", () => {
  const schedule = planSchedule(coco);
  assert.equal(learningRate(0, schedule), 0.02);
  assert.equal(learningRate(schedule.warmupSteps, schedule), 2);
  assert.ok(Math.abs(learningRate(schedule.totalSteps, schedule) - 1e-6) < 1e-15);
});

Deno.test("planSchedule() drops the images that do not divide among the ranks from the peak rate", () => {
  const schedule = planSchedule({ ...coco, batchSize: 519 });
  assert.equal(schedule.batchPerRank, 64);
  assert.equal(schedule.peakRate, 2);
});

Deno.test("teacherMomentum() counts fractional epochs, learningRate() whole ones", () => {
  const schedule = planSchedule({ ...coco, instances: 2559, epochs: 200 });
  assert.equal(schedule.totalSteps, 1000);
  assert.equal(schedule.teacherSteps, 999);
  assert.equal(teacherMomentum(999, schedule), 1);
  assert.equal(teacherCounter({ ...coco, instances: 2559 }, 1), 4);
});
