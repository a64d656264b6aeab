/**
 * PyTorch's files since version 1.6: a zip archive of `archive/data.pkl`, the pickled object, and `archive/data/<n>`, the
 * values of its tensors. The same value gives the same bytes.
 *
 * Source: `torch/serialization.py`, `caffe2/serialize/inline_container.cc` of PyTorch; PKWARE's APPNOTE.TXT for the zip.
 */
import { crc32 } from "node:zlib";
import type { FileArray, FileDtype, FileTensor } from "../file_tensor.ts";
import {
  BINPERSID,
  EMPTY_TUPLE,
  MARK,
  type PickleInput,
  PickleWriter,
  REDUCE,
  tensorBytes,
  TUPLE,
} from "../pickle/write.ts";

/**
 * A file that `torch.load` reads, also with `weights_only`, in pieces to be written one after the other: the tensors'
 * values are views, not copies. Tensors with the same `data` share a storage.
 *
 * Throws a `RangeError` for a tensor whose values do not fit its shape or whose type PyTorch lacks (U32), for values nested
 * deeper than 900, and for files of 4 GiB or 65535 entries and more.
 */
export const writeTorch = (value: PickleInput): readonly Uint8Array<ArrayBuffer>[] => {
  const storages = new Map<FileArray, string>();
  const out = new PickleWriter(2, (tensor) => writeTensor(out, tensor, storages));
  const pickled = out.finish(value);
  const text = (content: string) => [new TextEncoder().encode(content)];
  return storedZip([
    ["archive/data.pkl", pickled],
    ["archive/byteorder", text("little")],
    ...[...storages].map(([data, key]): Content => [
      `archive/data/${key}`,
      [new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)],
    ]),
    ["archive/version", text("3\n")],
  ]);
};

const STORAGES: Readonly<Partial<Record<FileDtype, string>>> = {
  F64: "DoubleStorage",
  F32: "FloatStorage",
  F16: "HalfStorage",
  BF16: "BFloat16Storage",
  I64: "LongStorage",
  I32: "IntStorage",
  I16: "ShortStorage",
  I8: "CharStorage",
  U8: "ByteStorage",
  BOOL: "BoolStorage",
};

const writeTensor = (out: PickleWriter, tensor: FileTensor, storages: Map<FileArray, string>) => {
  const type = STORAGES[tensor.dtype];
  if (type === undefined) {
    throw new RangeError(`Cannot write a tensor ${tensor.dtype}: PyTorch has no such storage`);
  }
  const data = tensorBytes(tensor);
  const key = storages.get(data) ?? String(storages.size);
  storages.set(data, key);
  const strides = tensor.shape.map((_, d) =>
    tensor.shape.slice(d + 1).reduce((product, size) => product * size, 1)
  );

  // _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)
  out.global("torch._utils", "_rebuild_tensor_v2");
  out.opcode(MARK, MARK);
  out.value("storage");
  out.global("torch", type);
  for (const part of [key, "cpu", data.length]) out.value(part);
  out.opcode(TUPLE, BINPERSID);
  out.value(0);
  out.tuple(tensor.shape);
  out.tuple(strides);
  out.value(false);
  out.global("collections", "OrderedDict");
  out.opcode(EMPTY_TUPLE, REDUCE, TUPLE, REDUCE);
};

type Content = readonly [name: string, pieces: readonly Uint8Array<ArrayBuffer>[]];

const LOCAL_HEADER = 30;
const DIRECTORY_HEADER = 46;
const END = 22;
const VERSION = 20; // of the zip format, that readers have to know
const FIRST_DAY = 1 << 5 | 1; // the first that the format can name: 1 January 1980
const ALIGNMENT = 64; // as PyTorch does, so that storages can be mapped into memory

/** An archive of entries that are not compressed. */
const storedZip = (contents: readonly Content[]): readonly Uint8Array<ArrayBuffer>[] => {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  const directory: Uint8Array<ArrayBuffer>[] = [];
  let offset = 0;
  for (const [name, content] of contents) {
    const nameBytes = new TextEncoder().encode(name);
    const crc = content.reduce((crc, piece) => crc32(piece, crc), 0);
    const size = content.reduce((sum, piece) => sum + piece.length, 0);
    // An extra field, "FB" as PyTorch names it, moves the data; it has four bytes at least.
    const extra = 4 + modulo(-(offset + LOCAL_HEADER + nameBytes.length + 4), ALIGNMENT);
    if (offset + size >= 0xffffffff - ALIGNMENT - LOCAL_HEADER - nameBytes.length) throw tooLarge();
    const common = (header: Uint8Array, at: number, extraLength: number) => {
      const view = new DataView(header.buffer, at);
      const fields = [VERSION, 0, 0, 0, FIRST_DAY]; // flags, method and time are 0
      fields.forEach((field, index) => view.setUint16(index * 2, field, true));
      [crc, size, size].forEach((field, index) => view.setUint32(10 + index * 4, field, true));
      view.setUint16(22, nameBytes.length, true);
      view.setUint16(24, extraLength, true);
    };

    const local = new Uint8Array(LOCAL_HEADER + nameBytes.length + extra);
    local.set([0x50, 0x4b, 3, 4]);
    common(local, 4, extra);
    local.set(nameBytes, LOCAL_HEADER);
    local.set([0x46, 0x42, (extra - 4) & 0xff, (extra - 4) >> 8], LOCAL_HEADER + nameBytes.length);
    pieces.push(local, ...content);

    const listed = new Uint8Array(DIRECTORY_HEADER + nameBytes.length);
    listed.set([0x50, 0x4b, 1, 2, VERSION]);
    common(listed, 6, 0);
    new DataView(listed.buffer).setUint32(42, offset, true);
    listed.set(nameBytes, DIRECTORY_HEADER);
    directory.push(listed);
    offset += local.length + size;
  }

  const directorySize = directory.reduce((sum, { length }) => sum + length, 0);
  if (offset + directorySize >= 0xffffffff || contents.length >= 0xffff) throw tooLarge();
  const end = new DataView(new ArrayBuffer(END));
  end.setUint32(0, 0x504b0506);
  end.setUint16(8, contents.length, true);
  end.setUint16(10, contents.length, true);
  end.setUint32(12, directorySize, true);
  end.setUint32(16, offset, true);
  return [...pieces, ...directory, new Uint8Array(end.buffer)];
};

const tooLarge = () => new RangeError("Cannot write a PyTorch file of 4 GiB or 65535 entries and more");

const modulo = (a: number, b: number) => (a % b + b) % b;
