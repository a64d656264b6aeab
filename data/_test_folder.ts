/** A test's body with an empty folder of its own, which is gone afterwards. */
export const inTestFolder = (test: (folder: string) => void | Promise<void>) => async () => {
  const folder = await Deno.makeTempDir();
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
};
