/** What can be grouped without learning: pixels of like colour in like places. A baseline for slots. */
import type { Picture } from "../../data/images/decode_image.ts";
import { randomStream } from "../../data/random/random.ts";

/** What tells the draws of clusters from the other draws of a seed. */
const CLUSTERS = 6;
const ROUNDS = 20;
const AXES = 5; // red, green, blue, x, y, each 0 … 1

export interface ClusterOptions {
  readonly clusters: number;
  readonly seed: number;
}

/** Maps of clusters, [H, W] for each picture, of what is alike in all pictures together. */
export const colorClusters = (pictures: readonly Picture[], options: ClusterOptions): Uint32Array[] =>
  pictures.map(fitColorClusters(pictures, options));

/**
 * Finds `clusters` clusters by k-means (Lloyd's) over the pixels of all pictures together, by colour and place. Centres
 * start at random pixels and follow every 16th one. The function that is returned gives every pixel of a picture, these
 * or another, its nearest centre.
 */
export const fitColorClusters = (
  pictures: readonly Picture[],
  { clusters, seed }: ClusterOptions,
): (picture: Picture) => Uint32Array => {
  const sample = joined(pictures.map((picture) => everySixteenth(pointsOf(picture), picture.width)));
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
  return (picture) => nearestCentres(pointsOf(picture), centres);
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
