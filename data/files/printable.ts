/** Texts that come from files, and names of files, as they may be shown. */

/**
 * Characters that steer a terminal, turn the direction of writing or cannot be seen, and halves of characters; but for
 * line breaks, tabs, and the joiners that some writings need.
 */
const UNPRINTABLE = /[[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]--[\n\t\u200c\u200d]]/gv;

const inJson = (character: string): string =>
  Array.from(
    { length: character.length },
    (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`,
  ).join("");

/**
 * A text of one or more lines as it may be shown anywhere: what steers a terminal, or makes text look like another, is
 * written as in JSON, `\u001b`. JSON stays what it is.
 */
export const printableText = (text: string): string => text.replace(UNPRINTABLE, inJson);

const LONGEST = 200; // characters

/** A name as it may be shown anywhere: like `printableText`, but on one line, and cut off where it is long. */
export const printable = (name: string, longest = LONGEST): string => {
  const shown = printableText(name).replace(/[\n\t]/g, inJson);
  return shown.length > longest ? `${shown.slice(0, longest - 1)}…` : shown;
};
