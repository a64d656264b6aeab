/** Text on its way to a terminal, which nothing steers but this project's own control sequences. */
import { printableText } from "../../data/files/printable.ts";

/** Stands for the escape character: no file can have it, since every process has another. */
const ESCAPE = crypto.randomUUID();

/** A control sequence of a terminal, `31m`, to be put into a text. */
export const control = (sequence: string): string => `${ESCAPE}[${sequence}`;

/** A text as a terminal may get it: what comes from files is printable, and `control` has its effect. */
export const terminalText = (text: string): string => printableText(text).replaceAll(ESCAPE, "\x1b");
