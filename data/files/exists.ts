/** Whether there is anything at a path; true where that cannot be told, since reading it will tell why. */
export const exists = (path: string): boolean => {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    return !(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory);
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
