/**
 * The version of this project, as deno.json has it, for files that other tools read and for collectors. A published package
 * has no deno.json.
 */
export const PROJECT_VERSION: string = "0.1.0";
