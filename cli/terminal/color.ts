/** Colours of text on standard output; none where that is no terminal or NO_COLOR is set. */
import { control } from "./terminal_text.ts";

const isColored = Deno.stdout.isTerminal() && !Deno.noColor;
const style = (code: number) => (text: string) =>
  isColored ? `${control(`${code}m`)}${text}${control("0m")}` : text;

export const bold = style(1);
export const dim = style(2);
export const red = style(31);
export const green = style(32);
export const yellow = style(33);
