/**
 * JSON as bytes. What is shown of a run that goes on is written anew every second, for weeks: so it is written without
 * strings and arrays that would fill the memory until they are collected.
 */
export interface JsonWriter {
  /** JSON as it is. */
  readonly text: (json: string) => void;
  /** A number with six digits, which are more than a screen shows, as 15e-1; null where it is not finite or beyond 1e30. */
  readonly number: (value: number) => void;
  /** A whole number with all its digits. */
  readonly integer: (value: number) => void;
  /** Arrays of such numbers. */
  readonly numbers: (values: Float64Array) => void;
  readonly integers: (values: Float64Array) => void;
  /** What was written since the last call. */
  readonly take: () => Uint8Array<ArrayBuffer>;
}

const [ZERO, MINUS, COMMA, LETTER_E] = [48, 45, 44, 101];
const DIGITS = 6;
const LARGEST = 1e30, SMALLEST = 1e-30; // what is smaller is 0

export const jsonWriter = (): JsonWriter => {
  const encoder = new TextEncoder();
  let buffer = new Uint8Array(2 ** 16);
  let length = 0;

  const reserve = (bytes: number) => {
    if (buffer.length >= length + bytes) return;
    const larger = new Uint8Array(2 * buffer.length + bytes);
    larger.set(buffer.subarray(0, length));
    buffer = larger;
  };
  const text = (json: string) => {
    reserve(3 * json.length);
    length += encoder.encodeInto(json, buffer.subarray(length)).written;
  };
  const integer = (value: number) => {
    reserve(32); // a comma, a sign and sixteen digits; those of an exponent, too
    if (value < 0) buffer[length++] = MINUS;
    let rest = Math.abs(value);
    let digits = 1;
    for (let power = 10; power <= rest; power *= 10) digits++;
    for (let i = digits - 1; i >= 0; i--) {
      buffer[length + i] = ZERO + rest % 10;
      rest = Math.floor(rest / 10);
    }
    length += digits;
  };
  const number = (value: number) => {
    const size = Math.abs(value);
    if (!(size <= LARGEST)) return text("null");
    if (size < SMALLEST) return integer(0);
    if (Number.isInteger(value) && size < 10 ** DIGITS) return integer(value);
    let exponent = Math.floor(Math.log10(size)) - DIGITS + 1;
    let digits = Math.round(value * 10 ** -exponent);
    for (; digits % 10 === 0; exponent++) digits /= 10;
    integer(digits);
    buffer[length++] = LETTER_E;
    integer(exponent);
  };
  return {
    text,
    integer,
    number,
    numbers: (values) => {
      text("[");
      for (let i = 0; i < values.length; i++) {
        if (i > 0) buffer[length++] = COMMA;
        number(values[i]);
      }
      text("]");
    },
    integers: (values) => {
      text("[");
      for (let i = 0; i < values.length; i++) {
        if (i > 0) buffer[length++] = COMMA;
        integer(values[i]);
      }
      text("]");
    },
    take: () => {
      const taken = buffer.slice(0, length);
      length = 0;
      return taken;
    },
  };
};
