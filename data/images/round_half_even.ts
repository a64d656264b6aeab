/** Rounds half to even, as Python, NumPy and the processor do. */
export const roundHalfEven = (value: number): number => {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + Math.abs(below % 2) : Math.round(value);
};
