/** All commands. Each is a file beside this one; what it may touch is its row in launch/access.ts. */
import type { Command } from "effect/cli";
import { convert } from "./convert.ts";
import { demo } from "./demo.ts";
import { doctor } from "./doctor.ts";
import { evaluate } from "./evaluate.ts";
import { inspect } from "./inspect.ts";
import { predict } from "./predict.ts";
import { pretrain } from "./pretrain.ts";
import { test } from "./test.ts";
import { transfer } from "./transfer.ts";
import { tune } from "./tune.ts";
import { verify } from "./verify.ts";
import { visualize } from "./visualize.ts";
import { watch } from "./watch.ts";
import type { CommandName } from "./launch/access.ts";

export const commands = {
  convert,
  demo,
  doctor,
  evaluate,
  inspect,
  predict,
  pretrain,
  test,
  transfer,
  tune,
  verify,
  visualize,
  watch,
} satisfies { readonly [Name in CommandName]: Command.Command<Name, never, unknown, unknown, unknown> };
