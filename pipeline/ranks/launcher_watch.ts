/**
 * Ends rank 0 when the process that started the ranks is gone, also where it was killed and could tell nobody; MPI then
 * ends the other ranks. It is a worker, since the rank's own thread may be blocked for many seconds.
 */

/** What the worker is told. */
export interface Watched {
  /** The path of an open library, through which that of C is found: a worker of Deno can end only itself. */
  readonly library: string;
}

const SYMBOLS = {
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32" },
  _exit: { parameters: ["i32"], result: "void" },
} as const;

const STDIN = 0, HUNG_UP = 0x10; // POLLHUP: nobody holds the other end of the pipe

declare const self: { onmessage: (message: { readonly data: Watched }) => void };
self.onmessage = ({ data: { library } }) => {
  const { poll, _exit } = Deno.dlopen(library, SYMBOLS).symbols;
  setInterval(() => {
    const request = Int32Array.of(STDIN, 0); // struct pollfd, whose last 16 bits say what happened
    poll(request, 1n, 0);
    if ((request[1] >> 16 & HUNG_UP) !== 0) _exit(1);
  }, 500);
};
