const LONGEST = 200; // characters

/**
 * A name out of a file or of a folder as it may be shown anywhere: control characters, those that turn the direction of
 * writing, and halves of letters become U+FFFD, and what is long is cut off.
 */
export const printable = (text: string, longest = LONGEST): string => {
  const shown = text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "\ufffd");
  return shown.length > longest ? `${shown.slice(0, longest - 1)}…` : shown;
};
