/** The known word that a mistyped one was probably meant to be, if one is close. */
export const didYouMean = (word: string, known: readonly string[]): string | undefined => {
  const distances = known.map((candidate) => ({ candidate, distance: editDistance(word, candidate) }));
  const closest = distances.reduce((a, b) => b.distance < a.distance ? b : a);
  return closest.distance <= Math.max(1, closest.candidate.length / 3) ? closest.candidate : undefined;
};

/** How many letters to insert, delete, replace or swap with their neighbour (optimal string alignment). */
const editDistance = (a: string, b: string): number => {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
        ? rows[i - 2][j - 2] + 1
        : Infinity;
      row.push(Math.min(replaced, swapped, rows[i - 1][j] + 1, row[j - 1] + 1));
    }
    rows.push(row);
  }
  return rows[a.length][b.length];
};
