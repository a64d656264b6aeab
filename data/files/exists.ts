/** Whether there is anything at a path that this process may look at. */
export const exists = (path: string): boolean => statOf(path) !== null;

/** Whether there is a file at a path, or a link to one, that this process may look at. */
export const isFile = (path: string): boolean => statOf(path)?.isFile === true;

/** What is at a path, links followed; null where there is nothing that this process may look at. */
export const statOf = (path: string): Deno.FileInfo | null => {
  try {
    return Deno.statSync(path);
  } catch {
    return null;
  }
};
