/**
 * Secrets in the addresses of collectors: a name and a password (`http://user:password@host`), and what follows a `?`, where
 * tokens are. Configurations hold addresses without them, so that no file, checkpoint, export, page or message has them;
 * they stay in this process, for its requests alone.
 */
const secrets = new Map<string, URL>();

/** What a request to a collector needs beside its address. */
export interface CollectorSecrets {
  /** Headers by name. */
  readonly headers: Readonly<Record<string, string>>;
  /** The query, with its question mark; "" without one. */
  readonly search: string;
}

/** The address without its secrets, which are kept for `secretsOf`; what is no address comes back as it is. */
export const withoutSecrets = (url: string): string => {
  const whole = URL.parse(url);
  if (whole === null || !(whole.username || whole.password || whole.search || whole.hash)) return url;
  const bare = new URL(whole.href);
  [bare.username, bare.password, bare.search, bare.hash] = ["", "", "", ""];
  secrets.set(bare.href, whole);
  return bare.href;
};

/** The secrets of an address that came from `withoutSecrets`. */
export const secretsOf = (bare: string): CollectorSecrets => {
  const { username, password, search } = secrets.get(bare) ?? { username: "", password: "", search: "" };
  if (username === "" && password === "") return { headers: {}, search };
  const bytes = new TextEncoder().encode(`${decoded(username)}:${decoded(password)}`);
  return { headers: { Authorization: `Basic ${bytes.toBase64()}` }, search };
};

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a percent sign of the password's own
  }
};

/** A text in which the secrets of an address do not appear: for messages about what somebody wrote. */
export const masked = (text: string): string => text.replace(/(^|\/\/).*@/s, "$1…@").replace(/\?.*$/s, "?…");
