/** Numbers of bytes as text. */

const UNITS: Readonly<Record<string, number>> = {
  ...{ KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 },
  ...{ kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 },
};

/** Bytes with three digits: "12.4 GiB", "715 MiB", "3 KiB". */
export const writtenBytes = (bytes: number): string => {
  const units = ["KiB", "MiB", "GiB"];
  let amount = bytes / 1024;
  while (units.length > 1 && amount >= 1024) {
    amount /= 1024;
    units.shift();
  }
  const digits = Number.isInteger(amount) || amount >= 100 ? 0 : amount >= 10 ? 1 : 2;
  return `${amount.toFixed(digits)} ${units[0]}`;
};

/** The bytes of "8GiB", "7.5 gib" or "500MB"; NaN where the text is not of this form. */
export const bytesIn = (text: string): number => {
  const [, amount, written] = text.trim().match(/^(\d+(?:\.\d+)?) ?([a-z]+)$/i) ?? [];
  const unit = Object.keys(UNITS).find((unit) => unit.toLowerCase() === written?.toLowerCase());
  return unit === undefined ? NaN : Math.floor(Number(amount) * UNITS[unit]);
};
