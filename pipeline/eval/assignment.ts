/**
 * The best one-to-one assignment of rows to columns: for each row its column, or −1, so that the sum of the chosen
 * `gains` (none negative) is the largest possible. With more rows than columns, some rows stay without.
 *
 * Kuhn's Hungarian method with potentials: rows join one after the other, each along the cheapest chain of rows that
 * change their columns for it. O(rows² · columns).
 */
export const bestAssignment = (gains: readonly (readonly number[])[]): number[] => {
  const rows = gains.length;
  const real = gains[0]?.length ?? 0;
  const columns = Math.max(real, rows); // the columns beyond the real ones gain nothing
  const cost = (row: number, column: number) => column < real ? -gains[row][column] : 0;
  const rowPotential = new Float64Array(rows);
  const columnPotential = new Float64Array(columns + 1);
  const rowOf = new Int32Array(columns + 1).fill(-1);
  const start = columns; // where the chain of a new row begins, beside the columns proper

  for (let row = 0; row < rows; row++) {
    rowOf[start] = row;
    const cheapest = new Float64Array(columns).fill(Infinity); // way to each column
    const cameFrom = new Int32Array(columns);
    const visited = new Uint8Array(columns + 1);
    let at = start;
    while (rowOf[at] !== -1) {
      visited[at] = 1;
      const mover = rowOf[at];
      let next = -1;
      for (let column = 0; column < columns; column++) {
        if (visited[column]) continue;
        const way = cost(mover, column) - rowPotential[mover] - columnPotential[column];
        if (way < cheapest[column]) {
          cheapest[column] = way;
          cameFrom[column] = at;
        }
        if (next === -1 || cheapest[column] < cheapest[next]) next = column;
      }
      const step = cheapest[next];
      for (let column = 0; column <= columns; column++) {
        if (visited[column]) {
          rowPotential[rowOf[column]] += step;
          columnPotential[column] -= step;
        } else if (column < columns) cheapest[column] -= step;
      }
      at = next;
    }
    while (at !== start) {
      rowOf[at] = rowOf[cameFrom[at]];
      at = cameFrom[at];
    }
  }

  const columnOf = new Array<number>(rows).fill(-1);
  for (let column = 0; column < real; column++) if (rowOf[column] !== -1) columnOf[rowOf[column]] = column;
  return columnOf;
};
