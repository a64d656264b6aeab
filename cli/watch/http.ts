/**
 * A server of pages over HTTP/1.1 in which nothing that a client sends, leaves out or does not take lasts or grows without
 * bound: it answers GET and HEAD without bodies, and each connection has its time for everything.
 */

/** What is asked for. */
export interface Question {
  readonly method: string;
  readonly target: string; // begins with "/"
  readonly host: string; // the name alone, without the port
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Of this answer alone: it is freed once the client has it. */
  readonly body: Uint8Array<ArrayBuffer>;
}

/** Bounds on clients. Times are in milliseconds. */
export interface Limits {
  readonly connections: number;
  readonly bytes: number; // of answers that are not taken yet, of all clients together
  readonly idle: number; // until a question begins
  readonly asking: number; // from there until it is whole
  readonly answering: number; // until the client has taken the answer
}

const LIMITS: Limits = { connections: 128, bytes: 2 ** 26, idle: 15_000, asking: 5000, answering: 30_000 };
const LONGEST_QUESTION = 2 ** 13; // bytes
const MOST_LEFT = 2 ** 16; // bytes of a body that are read and dropped, so that its sender sees the answer

interface Connection {
  readonly socket: Deno.TcpConn;
  phase: "idle" | "asking" | "answering";
  since: number;
  bytes: number; // of the answer
}

/** Answers the clients of a listener until `close`, which ends all connections at once. */
export const serveHttp = (
  listener: Deno.TcpListener,
  answer: (question: Question) => Promise<Answer>,
  limits: Limits = LIMITS,
): { readonly close: () => void } => {
  const connections = new Set<Connection>();
  const drop = (connection: Connection) => {
    if (!connections.delete(connection)) return;
    try {
      connection.socket.close();
    } catch {
      // the client has closed it
    }
  };
  const enter = (connection: Connection, phase: Connection["phase"], bytes = 0) =>
    Object.assign(connection, { phase, since: performance.now(), bytes });

  /** Ends connections until the others are within the limits: those that wait for nothing first, then the slowest. */
  const makeRoom = () => {
    while (connections.size > limits.connections) {
      const idle = [...connections].filter(({ phase }) => phase === "idle");
      drop(oldest(idle.length > 0 ? idle : [...connections]));
    }
    const taking = () => [...connections].filter(({ bytes }) => bytes > 0);
    for (let all = taking(); all.length > 1 && bytesOf(all) > limits.bytes; all = taking()) drop(oldest(all));
  };
  const sweep = setInterval(() => {
    const now = performance.now();
    for (const connection of connections) {
      if (now - connection.since > limits[connection.phase]) drop(connection);
    }
  }, Math.min(500, limits.asking));

  const speak = async (connection: Connection) => {
    const { socket } = connection;
    socket.setNoDelay(); // the end of an answer does not wait for the client to confirm its begin
    const read = questionReader(socket, () => enter(connection, "asking"));
    for (;;) {
      enter(connection, "idle");
      const head = await read();
      if (head === null) return;
      enter(connection, "answering");
      const asked = parseHead(head);
      const answered = "reason" in asked ? badRequest(asked.reason) : await answer(asked.question);
      enter(connection, "answering", answered.body.length);
      makeRoom();
      const goesOn = "question" in asked && asked.goesOn;
      try {
        await write(socket, headOf(answered, goesOn));
        if (!("question" in asked && asked.question.method === "HEAD")) await write(socket, answered.body);
      } finally {
        answered.body.buffer.transfer(0); // much memory would be taken until it is collected
      }
      if (goesOn) continue;
      await socket.closeWrite();
      enter(connection, "asking");
      return await dropRest(socket);
    }
  };

  let isOpen = true;
  const accept = async () => {
    while (isOpen) {
      try {
        const connection: Connection = {
          socket: await listener.accept(),
          phase: "idle",
          since: performance.now(),
          bytes: 0,
        };
        connections.add(connection);
        makeRoom();
        speak(connection).catch(() => {}).finally(() => drop(connection));
      } catch {
        if (isOpen) await new Promise((resolve) => setTimeout(resolve, 100)); // too many files are open
      }
    }
  };
  accept();
  return {
    close: () => {
      if (!isOpen) return;
      isOpen = false;
      clearInterval(sweep);
      listener.close();
      connections.forEach(drop);
    },
  };
};

const oldest = (connections: readonly Connection[]) =>
  connections.reduce((a, b) => b.since < a.since ? b : a);
const bytesOf = (connections: readonly Connection[]) =>
  connections.reduce((sum, { bytes }) => sum + bytes, 0);

/** Reads up to the empty line that ends each question; null where the client is done or sends too much. */
const questionReader = (socket: Deno.TcpConn, onFirst: () => void) => {
  const buffer = new Uint8Array(LONGEST_QUESTION);
  let filled = 0;
  return async (): Promise<string | null> => {
    if (filled > 0) onFirst();
    for (;;) {
      const text = latin1.decode(buffer.subarray(0, filled));
      const end = text.indexOf("\r\n\r\n");
      if (end >= 0) {
        buffer.copyWithin(0, end + 4, filled);
        filled -= end + 4;
        return text.slice(0, end);
      }
      if (filled === buffer.length) return "";
      const count = await socket.read(buffer.subarray(filled));
      if (count === null) return null;
      if (filled === 0) onFirst();
      filled += count;
    }
  };
};

const latin1 = new TextDecoder("latin1");

/** Reads what a client still sends, in vain, as it would not see its answer otherwise. */
const dropRest = async (socket: Deno.TcpConn) => {
  const rest = new Uint8Array(4096);
  for (let left = MOST_LEFT; left > 0;) {
    const count = await socket.read(rest);
    if (count === null) return;
    left -= count;
  }
};

const headOf = ({ status, headers, body }: Answer, goesOn: boolean): Uint8Array => {
  const all = {
    ...headers,
    "content-length": String(body.length),
    connection: goesOn ? "keep-alive" : "close",
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return new TextEncoder().encode(`HTTP/1.1 ${status} ${REASONS[status] ?? "-"}\r\n${lines.join("")}\r\n`);
};

/** The question in a head, and whether the client may ask more; the reason where it is none. */
const parseHead = (
  head: string,
): { readonly question: Question; readonly goesOn: boolean } | { readonly reason: string } => {
  const [first, ...lines] = head.split("\r\n");
  const [, method, target, version] = first.match(/^([A-Z]{1,20}) (\/[!-~]*) HTTP\/1\.([01])$/) ?? [];
  if (method === undefined) return { reason: "Expected a question as HTTP/1.1 has it, in at most 8 KiB" };
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = line.match(/^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/) ?? [];
    if (name === undefined || (headers.has(name.toLowerCase()) && /^host$/i.test(name))) {
      return { reason: "Expected headers as HTTP/1.1 has them" };
    }
    headers.set(name.toLowerCase(), value);
  }
  const host = hostName(headers.get("host") ?? "");
  if (host === null) return { reason: "Expected the name of a host in the header Host" };
  const hasBody = headers.has("transfer-encoding") || Number(headers.get("content-length") ?? 0) !== 0;
  const goesOn = version === "1" && !hasBody && !/\bclose\b/i.test(headers.get("connection") ?? "");
  return { question: { method, target, host }, goesOn };
};

/** The name in a header Host, in the one spelling that a URL has; null where it is none. */
const hostName = (host: string): string | null =>
  /^[\w.:[\]-]+$/.test(host) ? URL.parse(`http://${host}/`)?.hostname ?? null : null;

const badRequest = (reason: string): Answer => ({
  status: 400,
  headers: { "content-type": "text/plain; charset=utf-8" },
  body: new TextEncoder().encode(`${reason}\n`),
});

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

const write = async (socket: Deno.TcpConn, bytes: Uint8Array) => {
  for (let written = 0; written < bytes.length;) written += await socket.write(bytes.subarray(written));
};
