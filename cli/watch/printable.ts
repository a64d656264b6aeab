const LONGEST = 200; // characters

/**
 * A name out of a file or of a folder as it may be shown anywhere: control characters, those that turn the direction of
 * writing, and halves of letters become U+FFFD, and what is long is cut off.
 */
export const printable = (text: string): string => {
  const shown = text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "\ufffd");
  return shown.length > LONGEST ? `${shown.slice(0, LONGEST - 1)}…` : shown;
};
