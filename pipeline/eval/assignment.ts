/**
 * The one-to-one assignment of rows to columns with the largest sum of `gains` [rows, columns], none of which is
 * negative: the column of each row, or −1 for rows without one, where there are more rows than columns.
 *
 * The Hungarian method (Kuhn 1955) with potentials: rows are added one after the other, each along the cheapest
 * augmenting path. O(rows² · columns).
 */
export const bestAssignment = (gains: readonly (readonly number[])[]): number[] => {
  const rows = gains.length;
  const real = gains[0]?.length ?? 0;
  const columns = Math.max(real, rows); // columns beyond the real ones have gain 0
  const cost = (row: number, column: number) => column < real ? -gains[row][column] : 0;
  const rowPotential = new Float64Array(rows);
  const columnPotential = new Float64Array(columns + 1);
  const rowOf = new Int32Array(columns + 1).fill(-1);
  const start = columns; // a column of its own, where the path of a new row begins

  for (let row = 0; row < rows; row++) {
    rowOf[start] = row;
    const cheapest = new Float64Array(columns).fill(Infinity); // path to each column
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
