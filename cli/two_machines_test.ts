/** A run across two machines: network namespaces with host names and addresses of their own, and a wire between them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { endingOf, inTestFolder, shell, writeNoise } from "../data/_test_kit.ts";
import { mpiTest } from "../pipeline/ranks/_test_mpi.ts";
import { launcherSettings } from "../pipeline/ranks/launch.ts";
import { finish, result, savingRun, slotcon } from "./_test_kit.ts";

/** Makes the machines; $0 is a number that no other test uses at the same time. */
const MAKE = `set -e
for machine in 1 2; do ip netns add machine$machine-$0; done
ip link add wire netns machine1-$0 type veth peer name wire netns machine2-$0
for machine in 1 2; do
  ip -n machine$machine-$0 addr add 10.77.0.$machine/24 dev wire
  for device in lo wire; do ip -n machine$machine-$0 link set $device up; done
done`;

const REMOVE = "for machine in 1 2; do ip netns del machine$machine-$0; done";

/** What mpirun starts a program on another machine with, in place of ssh: its address, then a command. */
const SHELL = (number: string) =>
  `#!/bin/sh
machine=machine\${1#10.77.0.}-${number}
shift
exec ip netns exec $machine unshare --uts sh -c "hostname $machine; $*"
`;

const sh = async (line: string, ...args: readonly string[]) =>
  endingOf(await shell(line, args, { env: launcherSettings }).output());

const probe = await sh(
  `(${MAKE}) && ip netns exec machine1-$0 unshare --uts hostname x; ${REMOVE}`,
  `probe${Deno.pid}`,
);
const missing = probe.err === ""
  ? null
  : "this user may not make network namespaces, or there is no iproute2";

mpiTest(
  "a run across two machines that mpirun reaches by a host file ends with the bits of one on a single machine",
  inTestFolder(async (folder) => {
    const [pictures, single, across] = ["pictures", "single", "across"].map((name) => join(folder, name));
    const steps = 3;
    await writeNoise(pictures);
    await finish(pictures, single, steps, "--ranks", "2", "--allow-shared-device");

    const number = String(Deno.pid);
    await Deno.writeTextFile(join(folder, "remote"), SHELL(number), { mode: 0o755 });
    await Deno.writeTextFile(join(folder, "hosts"), "10.77.0.1 slots=1\n10.77.0.2 slots=1\n");
    try {
      const made = await sh(MAKE, number);
      assert.equal(made.code, 0, made.err);
      // Settings of Open MPI 4, then of 5.
      const { code, err } = await sh(
        `export OMPI_MCA_plm_rsh_agent="$1/remote" PRTE_MCA_plm_ssh_agent="$1/remote" hosts="$1/hosts" name="machine1-$0"
shift
exec ip netns exec $name unshare --uts sh -c 'hostname $name; exec mpirun -n 2 --map-by node --hostfile $hosts "$@"' "$@"`,
        number,
        folder,
        ...["sh", slotcon, ...savingRun(pictures, across, steps)],
      );
      assert.equal(code, 0, err);
      const wire = await sh("ip -json -s -n machine2-$0 link show wire", number);
      const [{ stats64: { rx, tx } }] = JSON.parse(wire.out);
      assert.ok(Math.min(rx.bytes, tx.bytes) > 100_000, wire.out); // weights one way, gradients both
    } finally {
      await sh(REMOVE, number);
    }
    assert.deepEqual(await result(across, steps), await result(single, steps));
  }),
  missing,
);
