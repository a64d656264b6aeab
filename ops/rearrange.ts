/**
 * Copies of tensors in another order. Fused kernels read by at most three strides; what needs more is copied first, by a
 * kernel of its own. Orders that three strides express never are.
 */
import { broadcastLayout, commonSizes, fitsFusedKernel, type Layout } from "./graph/layout.ts";
import { broadcastShape, type Shape, sizeOf } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";

interface Rearrangement {
  readonly shape: Shape;
  /** The order in which the elements of the input are read. */
  readonly layout: Layout;
  /** The gradient of the input from that of the result; it may have to be summed to the input's shape yet. */
  readonly reverse: (gradient: Tensor) => Tensor;
}

/** The elements of x in the order of a layout, as a tensor of `shape`. */
export const rearrange = (x: Tensor, rearrangement: Rearrangement): Tensor => rearrangeOp([x], rearrangement);

const rearrangeOp = defineOp<Rearrangement>("rearrange", {
  shape: (_, { shape }) => shape,
  kernels: ({ inputs: [x], output, attributes: { layout } }) => [kernel({
    label: "rearrange",
    reads: { x },
    writes: { y: output },
    sizes: Object.fromEntries(
      layout.flatMap(({ size, stride }, i) => [[`size${i}`, size], [`stride${i}`, stride]]),
    ),
    threads: sizeOf(output.shape),
    main: /* wgsl */ `
  var rest = id;
  var at = 0u;
  ${layout.map((_, i) => `at += rest % p.size${i} * p.stride${i}; rest /= p.size${i};`).join("\n  ")}
  y[id] = x[at];`,
  })],
  backward: ({ gradient, attributes: { reverse } }) => [reverse(gradient)],
});

/**
 * The inputs of an elementwise op, which broadcast to `shape`, such that one fused kernel can read them all: those with
 * the most axes are repeated to the whole shape where three strides do not suffice for them together.
 */
export const broadcastable = (
  op: string,
  inputs: readonly Tensor[],
  shape: Shape = broadcastShape(op, inputs.map((x) => x.shape)),
): readonly Tensor[] => {
  const layoutOf = (x: Tensor) => broadcastLayout(x.shape, shape);
  const fitted = [...inputs];
  while (!fitsFusedKernel(fitted.map(layoutOf), sizeOf(shape))) {
    const axes = fitted.map((x) => commonSizes([layoutOf(x)], sizeOf(shape))!.length);
    const most = axes.indexOf(Math.max(...axes));
    const layout = layoutOf(fitted[most]);
    fitted[most] = rearrange(fitted[most], { shape, layout, reverse: (gradient) => gradient });
  }
  return fitted;
};
