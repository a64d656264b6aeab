import assert from "node:assert/strict";
import { type Answer, type Limits, type Question, serveHttp } from "./http.ts";

/** Limits that no test waits for, and such that one does. */
const PATIENT: Limits = { connections: 8, bytes: 2 ** 22, idle: 60_000, asking: 60_000, answering: 60_000 };
const HURRIED: Limits = { ...PATIENT, idle: 300, asking: 300, answering: 500 };

/** A server of its own for a test: what it was asked, and how to speak with it. */
const serving = async (
  test: (server: { port: number; asked: Question[]; close: () => void }) => Promise<void>,
  answer = (_: Question): Promise<Uint8Array<ArrayBuffer>> => Promise.resolve(bytes("hello")),
  limits: Limits = PATIENT,
) => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const asked: Question[] = [];
  const { close } = serveHttp(listener, async (question): Promise<Answer> => {
    asked.push(question);
    return { status: 200, headers: { "content-type": "text/plain" }, body: await answer(question) };
  }, limits);
  try {
    await test({ port: listener.addr.port, asked, close });
  } finally {
    close();
  }
};

const bytes = (text: string) => new TextEncoder().encode(text);
const connect = (port: number) => Deno.connect({ hostname: "127.0.0.1", port });

/** Sends a text and reads until the server closes the connection. */
const exchange = async (port: number, text: string) => {
  using socket = await connect(port);
  await socket.write(bytes(text));
  return await new Response(socket.readable).text();
};

/** Waits until the server closes the connection; how long that took, in milliseconds. */
const closed = async (socket: Deno.Conn): Promise<number> => {
  const start = performance.now();
  const buffer = new Uint8Array(65_536);
  try {
    while (await socket.read(buffer) !== null);
  } catch {
    // it was cut off
  }
  return performance.now() - start;
};

Deno.test("serveHttp() answers several questions over one connection, and HEAD without a body", () =>
  serving(async ({ port, asked }) => {
    const got = await exchange(
      port,
      "GET /a?b=c HTTP/1.1\r\nHost: LOCALHOST:80\r\n\r\nHEAD /d HTTP/1.1\r\nhost:[::1]\r\n\r\n" +
        "GET /e HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    );
    assert.deepEqual(asked, [
      { method: "GET", target: "/a?b=c", host: "localhost" },
      { method: "HEAD", target: "/d", host: "[::1]" },
      { method: "GET", target: "/e", host: "127.0.0.1" },
    ]);
    const head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nconnection: ";
    assert.equal(got, `${head}keep-alive\r\n\r\nhello${head}keep-alive\r\n\r\n${head}close\r\n\r\nhello`);
  }));

Deno.test("serveHttp() refuses what is no question, and reads no body", () =>
  serving(async ({ port, asked }) => {
    for (
      const wrong of [
        "hello\r\n\r\n",
        "GET / HTTP/2\r\nHost: a\r\n\r\n",
        "GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        `GET / HTTP/1.1\r\nHost: a\r\nx: ${"y".repeat(8192)}\r\n\r\n`,
      ]
    ) assert.match(await exchange(port, wrong), /^HTTP\/1\.1 400 /, wrong.slice(0, 60));
    assert.deepEqual(asked, []);
    const body = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    const posted = await exchange(
      port,
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    assert.match(posted, /^HTTP\/1\.1 200 [^]*connection: close/);
    assert.deepEqual(asked, [{ method: "POST", target: "/", host: "a" }]);
  }));

Deno.test("serveHttp() gives up clients that ask nothing, ask slowly or do not take their answer", () =>
  serving(
    async ({ port }) => {
      using silent = await connect(port);
      assert.ok(await closed(silent) < 5000);

      using slow = await connect(port);
      const dripping = setInterval(() => slow.write(bytes("G")).catch(() => {}), 20);
      assert.ok(await closed(slow) < 5000);
      clearInterval(dripping);

      using deaf = await connect(port);
      await deaf.write(bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
      await new Promise((resolve) => setTimeout(resolve, 1500));
      let taken = 0;
      const buffer = new Uint8Array(2 ** 20);
      try {
        for (let count = 0; count !== null; count = await deaf.read(buffer) ?? null!) taken += count;
      } catch {
        // it was cut off
      }
      assert.ok(taken < 2 ** 25, `it took ${taken} bytes`);
    },
    () => Promise.resolve(new Uint8Array(2 ** 25)),
    HURRIED,
  ));

Deno.test("serveHttp() answers new clients however many others hold on to theirs, and ends at once", () =>
  serving(async ({ port, close }) => {
    const held: Deno.Conn[] = [];
    for (let i = 0; i < 40; i++) held.push(await connect(port));
    assert.match(await exchange(port, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), /hello$/);
    const last = held.at(-1)!;
    const ending = closed(last);
    close();
    assert.ok(await ending < 10_000);
    for (const socket of held) socket.close();
  }));
