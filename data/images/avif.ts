/**
 * AVIF files without their turns: a file may ask to be rotated (`irot`) and mirrored (`imir`) for display, which
 * libheif does and Pillow does not, as for orientations of JPEG.
 *
 * Source: ISO/IEC 23008-12, boxes of ISO/IEC 14496-12.
 */

interface Box {
  readonly type: string;
  readonly begin: number;
  readonly content: number;
  readonly end: number;
}

/** A copy of the file whose turns are by 0 degrees; the file itself where there are none. */
export const withoutTurns = (bytes: Uint8Array): Uint8Array => {
  const meta = boxesIn(bytes, 0, bytes.length).find(({ type }) => type === "meta");
  if (meta === undefined) return bytes;
  const inside = (parent: Box | undefined, skipped: number, wanted: string) =>
    parent && boxesIn(bytes, parent.content + skipped, parent.end).find(({ type }) => type === wanted);
  const properties = inside(inside(meta, 4, "iprp"), 0, "ipco");
  if (properties === undefined) return bytes;
  const turns = boxesIn(bytes, properties.content, properties.end)
    .filter(({ type, content, end }) => (type === "irot" || type === "imir") && end > content);
  if (turns.length === 0) return bytes;
  const copy = bytes.slice();
  for (const { begin, content } of turns) {
    copy.set(new TextEncoder().encode("irot"), begin + 4);
    copy[content] = 0;
  }
  return copy;
};

/** At most as many as any image has; files are not trusted. */
const MOST_BOXES = 1000;

const boxesIn = (bytes: Uint8Array, from: number, to: number): Box[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const boxes: Box[] = [];
  for (let begin = from; begin + 8 <= to && boxes.length < MOST_BOXES;) {
    const written = view.getUint32(begin);
    const isLarge = written === 1 && begin + 16 <= to;
    const size = isLarge ? Number(view.getBigUint64(begin + 8)) : written === 0 ? to - begin : written;
    const content = begin + (isLarge ? 16 : 8);
    const end = begin + size;
    if (end < content || end > to) break;
    const type = new TextDecoder("latin1").decode(bytes.subarray(begin + 4, begin + 8));
    boxes.push({ type, begin, content, end });
    begin = end;
  }
  return boxes;
};
