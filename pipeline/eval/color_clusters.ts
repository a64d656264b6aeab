/** A baseline for slots without learning: k-means of pixels by colour and position. */
import type { Picture } from "../../data/images/decode_image.ts";
import { randomStream } from "../../data/random/random.ts";

/** The word of a random key that tells the draws of clusters from the others of a seed. */
const CLUSTERS = 6;
/** Rounds of Lloyd's algorithm. */
const ROUNDS = 20;
/** Coordinates of a pixel: red, green, blue, x, y, each 0 … 1. */
const AXES = 5;

/** How to cluster. */
export interface ClusterOptions {
  /** The number of clusters. */
  readonly clusters: number;
  /** The seed of the first centres. */
  readonly seed: number;
}

/** The cluster of every pixel, [H, W] for each image; clusters are those of all images together. */
export const colorClusters = (images: readonly Picture[], options: ClusterOptions): Uint32Array[] =>
  images.map(fitColorClusters(images, options));

/**
 * Finds clusters by k-means (Lloyd's algorithm) over every 16th pixel of all images together, by colour and position,
 * from random pixels as first centres. Returns a function from any image to the nearest centre of each pixel, [H, W].
 */
export const fitColorClusters = (
  images: readonly Picture[],
  { clusters, seed }: ClusterOptions,
): (image: Picture) => Uint32Array => {
  const sample = joined(images.map((image) => everySixteenth(pointsOf(image), image.width)));
  const count = sample.length / AXES;
  const random = randomStream(seed, CLUSTERS);
  const centres = new Float64Array(clusters * AXES);
  for (let k = 0; k < clusters; k++) {
    const at = AXES * random.integer(count);
    centres.set(sample.subarray(at, at + AXES), AXES * k);
  }

  for (let round = 0; round < ROUNDS; round++) {
    const sums = new Float64Array(clusters * AXES);
    const members = new Float64Array(clusters);
    nearestCentres(sample, centres).forEach((k, i) => {
      members[k]++;
      for (let axis = 0; axis < AXES; axis++) sums[AXES * k + axis] += sample[AXES * i + axis];
    });
    sums.forEach((sum, i) => {
      const share = members[Math.floor(i / AXES)];
      if (share > 0) centres[i] = sum / share;
    });
  }
  return (image) => nearestCentres(pointsOf(image), centres);
};

const pointsOf = ({ width, height, rgb }: Picture): Float32Array => {
  const points = new Float32Array(width * height * AXES);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) points[AXES * i + c] = rgb[3 * i + c] / 255;
    points[AXES * i + 3] = (i % width + 0.5) / width;
    points[AXES * i + 4] = (Math.floor(i / width) + 0.5) / height;
  }
  return points;
};

/** Every fourth pixel of every fourth row. */
const everySixteenth = (points: Float32Array, width: number): Float32Array => {
  const kept: number[] = [];
  for (let i = 0; i < points.length / AXES; i++) {
    if (i % width % 4 !== 0 || Math.floor(i / width) % 4 !== 0) continue;
    for (let axis = 0; axis < AXES; axis++) kept.push(points[AXES * i + axis]);
  }
  return Float32Array.from(kept);
};

const joined = (parts: readonly Float32Array[]): Float32Array => {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};

const nearestCentres = (points: Float32Array, centres: Float64Array): Uint32Array => {
  const nearest = new Uint32Array(points.length / AXES);
  for (let i = 0; i < nearest.length; i++) {
    const at = AXES * i;
    const red = points[at],
      green = points[at + 1],
      blue = points[at + 2],
      x = points[at + 3],
      y = points[at + 4];
    let least = Infinity;
    for (let k = 0; k < centres.length; k += AXES) {
      const distance = (red - centres[k]) ** 2 + (green - centres[k + 1]) ** 2 +
        (blue - centres[k + 2]) ** 2 +
        (x - centres[k + 3]) ** 2 + (y - centres[k + 4]) ** 2;
      if (distance < least) {
        least = distance;
        nearest[i] = k / AXES;
      }
    }
  }
  return nearest;
};
