/** Fields of Protocol Buffers messages, for formats that are made of them. */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

export const written = (write: (to: BinaryWriter) => void): Uint8Array<ArrayBuffer> => {
  const writer = new BinaryWriter();
  write(writer);
  return writer.finish();
};

export const integer = (to: BinaryWriter, field: number, value: number) =>
  to.tag(field, WireType.Varint).int64(value);

export const text = (to: BinaryWriter, field: number, value: string) =>
  to.tag(field, WireType.LengthDelimited).string(value);

export const message = (to: BinaryWriter, field: number, write: () => void) => {
  to.tag(field, WireType.LengthDelimited).fork();
  write();
  to.join();
};
