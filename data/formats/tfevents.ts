/**
 * TensorBoard event files: records of a run's numbers, pictures and texts, one after the other. A file that was cut short
 * is read up to its last whole record.
 *
 * Source: tensorflow/tensorflow, `tsl/lib/io/record_writer.h` (the records); tensorflow/tensorboard,
 * `tensorboard/compat/proto/{event,summary,tensor}.proto` (the messages, whose field numbers are used below).
 */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { integer, message, text } from "./protobuf.ts";

/** What a step is shown by. The part of a tag before its first "/" is the group it is shown in. */
export type SummaryValue =
  & { readonly tag: string }
  & ({ readonly scalar: number } | { readonly picture: EncodedPicture } | { readonly markdown: string });

/** A picture of red, green and blue as the bytes of a PNG or JPEG file. */
export interface EncodedPicture {
  readonly width: number; // pixels, as `height` is
  readonly height: number;
  readonly file: Uint8Array;
}

/**
 * An event file, as functions to the bytes of its next records. Times are in seconds since 1970.
 *
 * - `start` comes first. Of the files of a folder, which are read in the order of their names, it takes back what earlier
 *   ones said of `step` and later ones: a run that goes on from there says it again;
 * - `summary` says what a step is shown by.
 */
export const eventFile = () => {
  const told = new Set<string>(); // what a tag is has to be said once a file; of pictures it is known
  return {
    start: (time: number, step: number): Uint8Array<ArrayBuffer> =>
      joined([
        event(time, 0, (to) => text(to, 3, "brain.Event:2")),
        event(time, step, (to) => message(to, 7, () => integer(to, 1, SESSION_START))),
      ]),
    summary: (time: number, step: number, values: readonly SummaryValue[]): Uint8Array<ArrayBuffer> =>
      event(time, step, (to) => {
        message(to, 5, () => {
          for (const value of values) {
            message(to, 1, () => summaryValue(to, value, !told.has(value.tag)));
            told.add(value.tag);
          }
        });
      }),
  };
};

const SESSION_START = 1; // SessionLog.SessionStatus
const [SCALAR, TENSOR] = [1, 2]; // DataClass
const STRING = 7; // DataType
const RGB = 3; // Summary.Image.colorspace

const event = (time: number, step: number, what: (to: BinaryWriter) => void): Uint8Array<ArrayBuffer> => {
  const to = new BinaryWriter();
  to.tag(1, WireType.Bit64).double(time);
  if (step !== 0) integer(to, 2, step);
  what(to);
  return record(to.finish());
};

const summaryValue = (to: BinaryWriter, value: SummaryValue, isNew: boolean) => {
  text(to, 1, value.tag);
  if ("scalar" in value) {
    to.tag(2, WireType.Bit32).float(value.scalar);
    if (isNew) metadata(to, "scalars", SCALAR);
  } else if ("picture" in value) {
    const { width, height, file } = value.picture;
    message(to, 4, () => {
      integer(to, 1, height);
      integer(to, 2, width);
      integer(to, 3, RGB);
      to.tag(4, WireType.LengthDelimited).bytes(file);
    });
  } else {
    message(to, 8, () => {
      integer(to, 1, STRING);
      message(to, 2, () => message(to, 2, () => integer(to, 1, 1))); // of shape [1]
      text(to, 8, value.markdown);
    });
    if (isNew) metadata(to, "text", TENSOR);
  }
};

const metadata = (to: BinaryWriter, plugin: string, dataClass: number) =>
  message(to, 9, () => {
    message(to, 1, () => text(to, 1, plugin));
    integer(to, 4, dataClass);
  });

/** A record: length, its checksum, bytes, their checksum. */
const record = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  const whole = new Uint8Array(bytes.length + 16);
  const view = new DataView(whole.buffer);
  view.setBigUint64(0, BigInt(bytes.length), true);
  view.setUint32(8, maskedCrc32c(whole.subarray(0, 8)), true);
  whole.set(bytes, 12);
  view.setUint32(12 + bytes.length, maskedCrc32c(bytes), true);
  return whole;
};

/** CRC-32C, turned and shifted so that a checksum of bytes that hold checksums stays a good one. */
const maskedCrc32c = (bytes: Uint8Array): number => {
  const crc = crc32c(bytes);
  return ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0;
};

/** CRC-32C (Castagnoli), which neither Deno nor Node has. */
const crc32c = (bytes: Uint8Array): number => {
  let crc = ~0;
  for (let i = 0; i < bytes.length; i++) crc = CRC_OF_BYTE[(crc ^ bytes[i]) & 0xff] ^ crc >>> 8;
  return ~crc >>> 0;
};

const CRC_OF_BYTE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? byte >>> 1 ^ 0x82f63b78 : byte >>> 1;
  return byte;
});

const joined = (pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> => {
  const whole = new Uint8Array(pieces.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
};
