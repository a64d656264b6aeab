/**
 * WebP animations cut off behind their first frame, so that a file of many thousand frames takes no longer than an
 * image.
 *
 * Source: the WebP container specification.
 */

/** The file without what follows its first frame; the file itself where it is no animation, or was cut short. */
export const firstFrameOnly = (bytes: Uint8Array): Uint8Array => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(4, true) + 8 > bytes.length) return bytes;
  for (let at = HEADER; at + 8 <= bytes.length;) {
    const size = view.getUint32(at + 4, true);
    const end = at + 8 + size + size % 2;
    if (view.getUint32(at) === FRAME && end < bytes.length) {
      const file = bytes.slice(0, end);
      new DataView(file.buffer).setUint32(4, end - 8, true);
      return file;
    }
    at = end;
  }
  return bytes;
};

const HEADER = 12;
const FRAME = 0x414e4d46; // "ANMF"
