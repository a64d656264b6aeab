/**
 * Draws one scene: two grounds that meet at a horizon, two to four objects before them, no two of a kind, one light.
 *
 * What a thing is shows in its texture and its shape, never in its colour: all that is in a scene is drawn in the same two
 * tones, a dark and a light one, a little different for each thing. The tones vary little between scenes, too: otherwise
 * a network can tell scenes apart by them, and learns that instead. Textures repeat every 7 to 13 pixels: that is what a
 * network of small reach can see as a texture, and the blur of the augmentation leaves of it.
 *
 * Lengths below are in pixels of a picture 128 wide and grow with the size.
 */
import type { Random } from "../random/random.ts";

/** What there is in a scene: four objects, then three grounds. In a label map a class is its place here + 1. */
export const sceneClasses = ["disc", "square", "star", "ring", "plain", "sand", "field"] as const;
export type SceneClass = (typeof sceneClasses)[number];

/** The classes that come in countable pieces. */
export const sceneObjects = ["disc", "square", "star", "ring"] as const satisfies readonly SceneClass[];
export type SceneObject = (typeof sceneObjects)[number];

export interface Scene {
  readonly rgb: Uint8Array; // [S, S, 3]
  readonly labels: Uint8Array; // [S, S], place in `sceneClasses` + 1
  readonly owners: Uint8Array; // [S, S], place in `objects` + 1, or 0 where a ground is seen
  readonly objects: readonly SceneObject[]; // from the back to the front
}

/** A scene of `size` x `size` pixels. The same random numbers draw the same scene. */
export const drawScene = (random: Random, size: number): Scene => {
  const unit = size / 128;
  const canvas: Canvas = {
    size,
    rgb: new Float32Array(size * size * 3),
    labels: new Uint8Array(size * size),
    owners: new Uint8Array(size * size),
  };
  const light = drawLight(random);
  const grain = Float32Array.from({ length: GRAIN * GRAIN }, () => random.uniform(-1, 1));
  const tones: Tones = { dark: drawColour(random, 55, 95), light: drawColour(random, 160, 200) };
  const surface = (shape: Shape) => drawSurface(random, shape, { unit, grain, tones });

  for (const ground of drawGrounds(random, size, unit)) paint(canvas, ground, surface(ground), light, 0);
  const bodies = drawKinds(random).map((kind) => drawBody(random, kind, size, unit));
  bodies.sort((a, b) => a.y - b.y); // what stands lower is nearer
  bodies.forEach((body, i) => {
    castShadow(canvas, body, light, unit);
    paint(canvas, body, surface(body), light, i + 1);
  });

  const rgb = new Uint8Array(new Uint8ClampedArray(canvas.rgb).buffer);
  return { rgb, labels: canvas.labels, owners: canvas.owners, objects: bodies.map(({ kind }) => kind) };
};

interface Canvas {
  readonly size: number;
  readonly rgb: Float32Array;
  readonly labels: Uint8Array;
  readonly owners: Uint8Array;
}

/** A number for every point of the picture. */
type Field = (x: number, y: number) => number;

/** Where something is: around (x, y), about `radius` wide each way. */
interface Shape<Kind extends SceneClass = SceneClass> {
  readonly kind: Kind;
  readonly x: number;
  readonly y: number;
  readonly radius: number;
  readonly distance: Field; // to its edge in pixels, negative inside
}

/** How it looks: `colour` + `amplitude` * `texture`, per channel. */
interface Surface {
  readonly colour: readonly number[];
  readonly amplitude: readonly number[];
  readonly texture: Field; // about -1 ... 1
}

interface Light {
  readonly x: number; // unit vector towards it
  readonly y: number;
  readonly contrast: number; // between a thing's middle and its bright edge
  readonly shadow: number; // 1 would be black
}

const paint = (canvas: Canvas, shape: Shape, surface: Surface, light: Light, owner: number) => {
  const { size, rgb, labels, owners } = canvas;
  const { colour, amplitude, texture } = surface;
  const label = sceneClasses.indexOf(shape.kind) + 1;
  visitAround(shape, size, 1, (x, y) => {
    const distance = shape.distance(x, y);
    if (distance >= 0.5) return;
    const cover = Math.min(1, 0.5 - distance); // of a pixel that the edge crosses
    const brightness = 1 +
      light.contrast * ((x - shape.x) * light.x + (y - shape.y) * light.y) / shape.radius;
    const pattern = texture(x, y);
    const i = y * size + x;
    for (let c = 0; c < 3; c++) {
      const value = brightness * (colour[c] + amplitude[c] * pattern);
      rgb[3 * i + c] += cover * (value - rgb[3 * i + c]);
    }
    if (distance >= 0) return;
    labels[i] = label;
    owners[i] = owner;
  });
};

/** Darkens what lies behind a shape as seen from the light, with a soft edge. */
const castShadow = ({ size, rgb }: Canvas, shape: Shape, light: Light, unit: number) => {
  const [length, softness] = [4 * unit, 6 * unit];
  visitAround(shape, size, length + softness, (x, y) => {
    const distance = shape.distance(x + length * light.x, y + length * light.y);
    const depth = light.shadow * Math.min(1, Math.max(0, 0.5 - distance / softness));
    for (let c = 0, i = 3 * (y * size + x); c < 3; c++) rgb[i + c] *= 1 - depth;
  });
};

/** Visits the pixels of a square around a shape that is sure to hold it and `margin` pixels more. */
const visitAround = (
  { x, y, radius }: Shape,
  size: number,
  margin: number,
  visit: (x: number, y: number) => void,
) => {
  const reach = radius * LARGEST_STRETCH + margin;
  const [left, right] = [Math.max(0, Math.floor(x - reach)), Math.min(size - 1, Math.ceil(x + reach))];
  const [top, bottom] = [Math.max(0, Math.floor(y - reach)), Math.min(size - 1, Math.ceil(y + reach))];
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) visit(column, row);
  }
};

const drawLight = (random: Random): Light => {
  const [x, y] = direction(random.uniform(0, 2 * Math.PI));
  return { x, y, contrast: random.uniform(0.05, 0.25), shadow: random.uniform(0.25, 0.5) };
};

/** One ground everywhere, then another one below a wavy horizon. */
const drawGrounds = (random: Random, size: number, unit: number): Shape[] => {
  const kinds: SceneClass[] = ["plain", "sand", "field"];
  const [back] = kinds.splice(random.integer(3), 1);
  const front = kinds[random.integer(2)];
  const level = random.uniform(0.35, 0.65) * size;
  const slope = random.uniform(-0.15, 0.15);
  const height = random.uniform(0, 4) * unit;
  const frequency = 2 * Math.PI / (random.uniform(40, 100) * unit);
  const phase = random.uniform(0, 2 * Math.PI);
  const horizon = (x: number) => level + slope * (x - size / 2) + height * Math.sin(frequency * x + phase);
  const whole = { x: size / 2, y: size / 2, radius: size / 2 };
  return [
    { kind: back, ...whole, distance: () => -1 },
    { kind: front, ...whole, distance: (x, y) => horizon(x) - y },
  ];
};

const LARGEST_STRETCH = 1.2;

/** Two to four different ones. */
const drawKinds = (random: Random): SceneObject[] => {
  const left: SceneObject[] = [...sceneObjects];
  return Array.from({ length: 2 + random.integer(3) }, () => left.splice(random.integer(left.length), 1)[0]);
};

const drawBody = (random: Random, kind: SceneObject, size: number, unit: number): Shape<SceneObject> => {
  const [x, y] = [random.uniform(0.1, 0.9) * size, random.uniform(0.1, 0.9) * size];
  const radius = random.uniform(22, 38) * unit;
  const stretch = random.uniform(1, LARGEST_STRETCH);
  const [cos, sin] = direction(random.uniform(0, 2 * Math.PI));
  const outline = outlines[kind](random);
  const distance: Field = (px, py) => {
    const along = (px - x) * cos + (py - y) * sin;
    const across = (py - y) * cos - (px - x) * sin;
    return outline(along / (radius * stretch), (across * stretch) / radius) * radius / stretch;
  };
  return { kind, x, y, radius, distance };
};

/** Signed distances to outlines of radius 1 around the origin. */
const outlines: Record<SceneObject, (random: Random) => Field> = {
  disc: () => (x, y) => Math.hypot(x, y) - 1,
  square: (random) => {
    const corner = random.uniform(0, 0.25);
    const straight = 0.8 - corner;
    return (x, y) => {
      const [dx, dy] = [Math.abs(x) - straight, Math.abs(y) - straight];
      return Math.hypot(Math.max(dx, 0), Math.max(dy, 0)) + Math.min(0, Math.max(dx, dy)) - corner;
    };
  },
  star: (random) => {
    // Folded to the tenth between a tip at (1, 0) and a valley, the outline is one straight line.
    const valley = random.uniform(0.5, 0.6);
    const tenth = Math.PI / 5;
    const [lineX, lineY] = [valley * Math.cos(tenth) - 1, valley * Math.sin(tenth)];
    const length = Math.hypot(lineX, lineY);
    return (x, y) => {
      const turns = Math.atan2(y, x) / (2 * tenth);
      const angle = Math.abs(turns - Math.round(turns)) * 2 * tenth;
      const far = Math.hypot(x, y);
      return ((far * Math.cos(angle) - 1) * lineY - far * Math.sin(angle) * lineX) / length;
    };
  },
  ring: (random) => {
    const hole = random.uniform(0.3, 0.5);
    return (x, y) => Math.abs(Math.hypot(x, y) - (1 + hole) / 2) - (1 - hole) / 2;
  },
};

interface Tones {
  readonly dark: readonly number[];
  readonly light: readonly number[];
}

interface Brush {
  readonly unit: number;
  readonly grain: Float32Array; // [GRAIN, GRAIN], white noise
  readonly tones: Tones;
}

const drawColour = (random: Random, low: number, high: number) =>
  [0, 1, 2].map(() => random.uniform(low, high));

const drawSurface = (random: Random, shape: Shape, brush: Brush): Surface => {
  const [dark, light] = [brush.tones.dark, brush.tones.light].map((tone) =>
    tone.map((value) => value + random.uniform(-15, 15))
  );
  return {
    colour: dark.map((value, c) => (value + light[c]) / 2),
    amplitude: dark.map((value, c) => (light[c] - value) / 2),
    texture: textures[shape.kind](random, shape, brush),
  };
};

type DrawTexture = (random: Random, shape: Shape, brush: Brush) => Field;

const gradient: DrawTexture = (random, { x, y, radius }) => {
  const [dx, dy] = direction(random.uniform(0, 2 * Math.PI));
  return (px, py) => ((px - x) * dx + (py - y) * dy) / radius;
};

/** Waves that run in direction `angle`, a little tilted, with flattened tops. */
const stripes = (angle: number): DrawTexture => (random, _, { unit }) => {
  const [dx, dy] = direction(angle + random.uniform(-0.2, 0.2));
  const frequency = 2 * Math.PI / (random.uniform(7, 9) * unit);
  const phase = random.uniform(0, 2 * Math.PI);
  return (x, y) => Math.tanh(2 * Math.sin(frequency * (x * dx + y * dy) + phase));
};

/** Stripes that fall to the left or to the right: mirrored, they are the same. */
const slanted: DrawTexture = (random, shape, brush) =>
  stripes(random.uniform() < 0.5 ? Math.PI / 4 : -Math.PI / 4)(random, shape, brush);

const checks: DrawTexture = (random, _, { unit }) => {
  const [dx, dy] = direction(random.uniform(-0.2, 0.2));
  const frequency = 2 * Math.PI / (random.uniform(10.5, 13.5) * unit);
  return (x, y) =>
    Math.tanh(6 * Math.sin(frequency * (x * dx + y * dy)) * Math.sin(frequency * (y * dx - x * dy)));
};

const GRAIN = 64; // a power of 2

/** Noise in cells of `cell` pixels: patches of the one tone on the other. */
const speckles = (cell: number): DrawTexture => (random, _, { unit, grain }) => {
  const [shiftX, shiftY] = [random.integer(GRAIN), random.integer(GRAIN)];
  const at = (x: number, y: number) =>
    grain[((y + shiftY) & (GRAIN - 1)) * GRAIN + ((x + shiftX) & (GRAIN - 1))];
  return (px, py) => {
    const [x, y] = [px / (cell * unit), py / (cell * unit)];
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const [fx, fy] = [x - left, y - top];
    const upper = at(left, top) * (1 - fx) + at(left + 1, top) * fx;
    const lower = at(left, top + 1) * (1 - fx) + at(left + 1, top + 1) * fx;
    return Math.tanh(4 * (upper * (1 - fy) + lower * fy));
  };
};

const textures: Record<SceneClass, DrawTexture> = {
  disc: stripes(0),
  square: stripes(Math.PI / 2),
  star: gradient,
  ring: checks,
  plain: gradient,
  sand: speckles(2.5),
  field: slanted,
};

const direction = (angle: number): readonly [number, number] => [Math.cos(angle), Math.sin(angle)];
