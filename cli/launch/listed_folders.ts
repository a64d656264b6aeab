import { dirname } from "node:path";
import { LARGEST_LIST, pathsInList } from "../../data/datasets/path_list.ts";

/**
 * What a command may read of a data set: its path, and where that is a text file of paths, also the folder that holds
 * them all. Whatever is wrong with the file is for the command itself to say.
 */
export const withListed = (path: string): string[] => {
  const paths = listedIn(path);
  return paths.length === 0 ? [path] : [path, paths.map((each) => dirname(each)).reduce(commonFolder)];
};

const listedIn = (path: string): readonly string[] => {
  try {
    const { isFile, size } = Deno.statSync(path);
    if (!isFile || size > LARGEST_LIST) return []; // to open a pipe would wait for its writer
    const paths = pathsInList(path, Deno.readFileSync(path));
    return typeof paths === "string" ? [] : paths;
  } catch {
    return [];
  }
};

const commonFolder = (a: string, b: string): string => {
  while (a !== dirname(a) && a !== b && !b.startsWith(`${a}/`)) a = dirname(a);
  return a;
};
