/** A number of bytes as people read it, with three digits: "12.4 GiB", "715 MiB", "3 KiB". */
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
