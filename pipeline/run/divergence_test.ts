import assert from "node:assert/strict";
import { Effect } from "effect";
import { countNonFinite, expectFinite } from "./divergence.ts";

const batch = { step: 7, images: ["a.jpg", "b.jpg"] };
const messageOf = (metrics: Parameters<typeof expectFinite>[0]) =>
  Effect.runSync(Effect.match(expectFinite(metrics, batch, "lower --base-lr"), {
    onSuccess: () => null,
    onFailure: ({ message }) => message,
  }));

Deno.test("expectFinite() names the step, what is not finite, what to do and the pictures", () => {
  const good = { loss: 1, param_norm: 2, grad_norm: 3 };
  assert.equal(messageOf(good), null);
  assert.equal(messageOf({ loss: 1 }), null); // a step of one's own need not report norms
  const remedy = "lower --base-lr, and go on from the last checkpoint with --auto-resume";
  const pictures = "The pictures of that step: a.jpg, b.jpg";
  for (
    const [name, words] of [
      ["loss", "The loss"],
      ["param_norm", "The norm of the parameters"],
      ["grad_norm", "The norm of the gradients"],
    ]
  ) {
    for (const value of [NaN, Infinity]) {
      assert.equal(
        messageOf({ ...good, [name]: value }),
        `${words} of step 7 is ${value}: ${remedy}. ${pictures}`,
      );
    }
  }
});

Deno.test("expectFinite() lets a step pass whose loss scale is too large: it is skipped", () => {
  const skipped = { loss: 1, param_norm: 2, grad_norm: Infinity };
  assert.equal(messageOf({ ...skipped, loss_scale: 1024 }), null);
  assert.match(messageOf({ ...skipped, loss_scale: 2 ** -15 })!, /^The gradients of step 7 are not finite/);
  assert.match(messageOf({ ...skipped, param_norm: NaN, loss_scale: 1024 })!, /^The norm of the parameters/);
});

Deno.test("countNonFinite() counts infinities of both signs and NaN", () => {
  assert.equal(countNonFinite(Float32Array.of(0, -0, 1e38, NaN, Infinity, -Infinity, 1e-45)), 3);
});
