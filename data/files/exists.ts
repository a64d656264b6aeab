/** Whether there is anything at a path. Throws where that cannot be told. */
export const exists = (path: string): boolean => {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
};

/** Whether there is a file at a path, or a link to one; false where that cannot be told. */
export const isFile = (path: string): boolean => statOf(path)?.isFile === true;

/** What is at a path, links followed; null where that is nothing or cannot be told. */
export const statOf = (path: string): Deno.FileInfo | null => {
  try {
    return Deno.statSync(path);
  } catch {
    return null;
  }
};
