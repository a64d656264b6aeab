/**
 * Gives the memory of arrays back at once and leaves them empty.
 *
 * The garbage collector would do so too, but late: what it weighs is the small objects, not the megabytes behind them,
 * and a run's memory would swing by as much as it handles in a while.
 */
export const release = (...arrays: readonly ArrayBufferView<ArrayBufferLike>[]): void => {
  for (const { buffer, byteLength } of arrays) {
    if (buffer instanceof ArrayBuffer && byteLength === buffer.byteLength) buffer.transfer(0);
  }
};
