import assert from "node:assert/strict";
import { inTestFolder, shell } from "../../data/_test_kit.ts";
import { COMMAND_ACCESS } from "./access.ts";
import { permissionFlags } from "./permissions.ts";

const allowed = async (kind: "read" | "write" | "net" | "run", ...args: string[]): Promise<string[]> => {
  const flag = (await permissionFlags(args)).find((flag) => flag.startsWith(`--allow-${kind}=`));
  return flag?.slice(flag.indexOf("=") + 1).split(",") ?? [];
};

Deno.test("permissionFlags() lets pretrain read its data and write its run folder, however they are named", async () => {
  for (const args of [["--data-dir", "/d d", "--output-dir", "/o"], ["--data-dir=/d d", "--output-dir=/o"]]) {
    const read = await allowed("read", "pretrain", ...args);
    assert.ok(read.includes("/d d") && read.includes("/o"), String(read));
    assert.ok((await allowed("write", "pretrain", ...args)).includes("/o"));
    assert.ok(!(await allowed("write", "pretrain", ...args)).includes("/d d"));
  }
});

Deno.test("permissionFlags() lets evaluate read the checkpoint and the data, and write its two files or beside the checkpoint", async () => {
  const command = ["evaluate", "knn", "--data-dir", "/d", "--k", "20,200", "/c/x.pth"];
  const read = await allowed("read", ...command);
  assert.ok(read.includes("/c/x.pth") && read.includes("/d"), String(read));
  const written = async (...more: string[]) => (await allowed("write", ...command, ...more)).slice(1);
  assert.deepEqual(await written(), ["/c/evaluations"]);
  assert.deepEqual(await written("--output", "/o/x.json"), [
    ...["/o/x.json", "/o/x.json.partial", "/o/x.html", "/o/x.html.partial"],
  ]);
});

Deno.test("permissionFlags() gives no command the network, and only the tests another program", async () => {
  for (const command of ["pretrain", "demo", "doctor", "evaluate", "verify", "test", "--help", "unknown"]) {
    assert.deepEqual(await allowed("net", command), []);
    assert.deepEqual(await allowed("run", command), command === "test" ? [Deno.execPath()] : []);
    assert.ok(!(await allowed("read", command)).includes("/"));
  }
});

Deno.test("permissionFlags() lets pretrain reach the collector of --otlp, and no other host or port", async () => {
  for (
    const [url, host] of [
      ["http://localhost:4318", "localhost:4318"],
      ["http://10.0.0.1/v1", "10.0.0.1:80"],
      ["https://otel.example.org/x?y", "otel.example.org:443"],
      ["http://[::1]:4318", "[::1]:4318"],
    ]
  ) {
    assert.deepEqual(await allowed("net", "pretrain", "--otlp", url), [host]);
  }
  for (const url of ["", "localhost", "http://a,b/", "file:///x"]) {
    assert.deepEqual(await allowed("net", "pretrain", `--otlp=${url}`), []);
  }
  assert.deepEqual(await allowed("net", "demo", "--otlp", "http://localhost:4318"), []);
});

Deno.test(
  "permissionFlags() reads the folders from a configuration file, which options override",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/a.yaml`,
      "data_dir: /from/yaml # a comment\noutput-dir: '/yaml out'\n",
    );
    const config = ["pretrain", "--config", `${folder}/a.yaml`];
    assert.ok((await allowed("read", ...config)).includes("/from/yaml"));
    assert.ok((await allowed("write", ...config)).includes("/yaml out"));
    assert.ok(!(await allowed("write", ...config, "--output-dir", "/flag")).includes("/yaml out"));
  }),
);

Deno.test(
  "permissionFlags() lets a list of pictures name pictures elsewhere",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/list.txt`, "/photos/a/1.jpg\n/photos/ab/2.jpg\n");
    assert.ok((await allowed("read", "pretrain", "--data-dir", `${folder}/list.txt`)).includes("/photos"));
    await Deno.rename(`${folder}/list.txt`, `${folder}/list`); // its name does not matter, a configuration is no list
    assert.ok((await allowed("read", "pretrain", "--data-dir", `${folder}/list`)).includes("/photos"));
    assert.ok(!(await allowed("read", "pretrain", "--init", `${folder}/list`)).includes("/photos"));
    await shell('mkfifo "$0"', [`${folder}/pipe`]).output();
    assert.ok((await allowed("read", "pretrain", "--data-dir", `${folder}/pipe`)).includes(`${folder}/pipe`));
  }),
);

Deno.test("permissionFlags() of no command allows more than odd names say", async () => {
  const plain = [
    "/o d/x",
    "/o/ü 漢",
    "/o/-x",
    "/o/--allow-all",
    "/o/a=b",
    "/o/*",
    "/o/'\"$(x)`;|&",
    "/o/ x ",
  ];
  const split = ["/o/a,/etc", "/o/a,b", "/o/a\n--allow-all", "/o/a\r/b", "/o/\n"];
  const uses: Readonly<Record<string, (name: string) => readonly (readonly string[])[]>> = {
    convert: (name) => [[name, "/q/y"], ["--", "/q/x", name]],
    demo: (name) => [[`--output-dir=${name}`]],
    doctor: (name) => [[`--dump-program=${name}`], [`--data-dir=${name}`]],
    evaluate: (name) => [
      ["knn", "--", name],
      ...["data-dir", "output", "val-list", "class-file"].map((
        option,
      ) => ["knn", "/x", `--${option}=${name}`]),
    ],
    inspect: (name) => [["--", name], ["/x", `--data-dir=${name}`]],
    predict: (name) => [["--", name], ["/q/x", "/q/y", name], ["/q/x", "/q/y", `--output=${name}`]],
    pretrain: (name) =>
      ["data-dir", "output-dir", "config", "init", "resume"].map((option) => [`--${option}=${name}`]),
    test: () => [],
    transfer: (name) =>
      ["data-dir", "output-dir", "config", "weights", "train-list", "val-list", "class-file", "resume"]
        .map((option) => ["segmentation", `--${option}=${name}`]),
    tune: (name) => ["data-dir", "config", "init"].map((option) => [`--${option}=${name}`]),
    verify: (name) => [["--", name], [`--out=${name}`]],
    visualize: (name) => [["--", name], ["/x", `--images=${name}`], ["/q/x", `--save-path=${name}`]],
    watch: (name) => [["--", name], [`--overlay=${name}`]],
  };
  assert.deepEqual(Object.keys(uses).sort(), Object.keys(COMMAND_ACCESS).sort());
  for (const [command, argumentsWith] of Object.entries(uses)) {
    const usual = argumentsWith("/o/usual");
    for (const name of plain) {
      for (const [i, args] of argumentsWith(name).entries()) {
        const flags = await permissionFlags([command, ...args]);
        const expected = await permissionFlags([command, ...usual[i]]);
        assert.deepEqual(
          flags.map((flag) => flag.split("=", 1)[0]),
          expected.map((flag) => flag.split("=", 1)[0]),
        );
        assert.ok(flags.every((flag) => !flag.includes("\n")));
        for (const [at, flag] of flags.entries()) {
          const paths = flag.slice(flag.indexOf("=") + 1).split(",");
          assert.equal(paths.length, expected[at].split(",").length, `${command} ${args}`);
          assert.ok(!paths.includes("/") && !paths.includes("/etc"), `${command} ${args}`);
        }
      }
    }
    for (const name of split) {
      for (const [i, args] of argumentsWith(name).entries()) {
        const found = await permissionFlags([command, ...args]).catch(({ message }) => message);
        if (typeof found === "string") assert.match(found, /has a comma or a line break in its name/);
        // Only the folder is allowed anyway, as of any other name in it.
        else assert.deepEqual(found, await permissionFlags([command, ...usual[i]]), `${command} ${args}`);
      }
    }
  }
});

Deno.test("permissionFlags() lets a page of runs be served to this machine alone, unless a host is named", async () => {
  assert.deepEqual(await allowed("net", "watch", "runs", "--overlay", "/curves/a.csv"), ["127.0.0.1"]);
  assert.ok((await allowed("read", "watch", "/runs", "--overlay", "/a.csv")).includes("/a.csv"));
  assert.ok((await allowed("read", "watch", "--port", "80", "/runs")).includes("/runs"));
  assert.deepEqual(await allowed("net", "watch", "runs", "--host", "0.0.0.0"), ["0.0.0.0"]);
  assert.deepEqual(await allowed("net", "watch", "runs", "--host", "*"), ["127.0.0.1"]);
  assert.deepEqual(await allowed("net", "pretrain", "--watch"), ["127.0.0.1"]);
  assert.deepEqual(await allowed("net", "pretrain"), []);
});

Deno.test("permissionFlags() lets only the process that starts ranks start another program", async () => {
  assert.deepEqual(await allowed("run", "pretrain", "--ranks", "2"), ["mpirun"]);
  assert.deepEqual(await allowed("run", "pretrain", "--ranks", "1"), []);
  Deno.env.set("OMPI_COMM_WORLD_RANK", "0");
  Deno.env.set("OMPI_COMM_WORLD_SIZE", "2");
  try {
    assert.deepEqual(await allowed("run", "pretrain", "--ranks", "2"), []);
  } finally {
    Deno.env.delete("OMPI_COMM_WORLD_RANK");
    Deno.env.delete("OMPI_COMM_WORLD_SIZE");
  }
});
