/** Rows of cells as text: the first column begins at the left, the others end at the right. */
export const table = (rows: readonly (readonly string[])[]): string => {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map(([first, ...rest]) =>
    [first.padEnd(widths[0]), ...rest.map((cell, i) => cell.padStart(widths[i + 1]))].join("  ")
  ).join("\n");
};
