/**
 * Finds the encoders among the tensors of a file, whoever wrote it: by the names of the tensors, wherever they are in the
 * file. Training scripts save their networks under entries of their own (`model`, `state_dict`, `teacher`), and wrappers
 * put prefixes before their names (`module.`, `_orig_mod.`, `backbone.bottom_up.`).
 */
import type { StoredTensor } from "../../data/formats/file_tensor.ts";
import { isStoredTensor, type TorchValue } from "../../data/formats/torch/stored_tensor.ts";

/** The networks in a file, or why there are none that can be told apart. */
export type Found =
  | {
    /**
     * Student and teacher (`encoder_q.conv1.weight`), a whole segmentor under mmsegmentation's names
     * (`backbone.conv1.weight`), or an encoder alone under torchvision's names.
     */
    readonly kind: "networks" | "segmentor" | "encoder";
    /** Their tensors. */
    readonly tensors: ReadonlyMap<string, StoredTensor>;
    /** The names of the file's other tensors, without its optimiser's. */
    readonly leftOut: readonly string[];
  }
  | { readonly kind: "none" }
  | { readonly kind: "ambiguous"; readonly places: readonly string[] };

/** The deepest entries that are looked into, which also ends with dicts that contain themselves. */
const DEEPEST = 8;

/** All tensors within dicts, by the names of their entries joined by dots; without the state of optimisers. */
export const tensorsWithin = (value: TorchValue): ReadonlyMap<string, StoredTensor> => {
  const tensors = new Map<string, StoredTensor>();
  const visit = (dict: ReadonlyMap<TorchValue, TorchValue>, path: string, depth: number) => {
    for (const [key, entry] of dict) {
      const name = `${path}${String(key)}`;
      if (isStoredTensor(entry)) tensors.set(name, entry);
      else if (entry instanceof Map && depth < DEEPEST && !/^optim/.test(name)) {
        visit(entry, `${name}.`, depth + 1);
      }
    }
  };
  if (value instanceof Map) visit(value, "", 0);
  return tensors;
};

/** The networks among `all` tensors of a file. */
export const findNetworks = (all: ReadonlyMap<string, StoredTensor>): Found => {
  const places = [...new Set([...all.keys()].flatMap(placeOf))];
  if (places.length === 0) return { kind: "none" };
  const segmentor = places.length === 1 ? segmentorAt(places[0], all) : null;
  if (segmentor !== null) return segmentor;
  const roles = places.length === 1 ? [ownRole(places[0])] : rolesOf(places);
  if (roles === null) return { kind: "ambiguous", places };
  const own = places.map(withoutWrappers).map((place) => place.match(/^(.*?)encoder_[qk]\.$/)?.[1]);
  const base = own.find((base) => base !== undefined);
  const tensors = new Map<string, StoredTensor>();
  const leftOut: string[] = [];
  for (const [name, tensor] of all) {
    const at = longestPlace(name, places);
    const inner = at === -1 ? "" : torchvisionName(name.slice(places[at].length));
    const shared = withoutWrappers(name);
    if (isOfEncoder(inner)) tensors.set(`${roles[at]}${inner}`, tensor);
    else if (base !== undefined && shared.startsWith(base) && isOfHeads(shared.slice(base.length))) {
      tensors.set(shared.slice(base.length), tensor);
    } else leftOut.push(name);
  }
  return { kind: roles[0] === "" ? "encoder" : "networks", tensors, leftOut };
};

/** The segmentor whose backbone's names begin with `place`; null where the file has no fully convolutional head. */
const segmentorAt = (place: string, all: ReadonlyMap<string, StoredTensor>): Found | null => {
  const base = place.match(/^(|.*\.)backbone\.$/)?.[1];
  if (base === undefined || !all.has(`${base}decode_head.conv_seg.weight`)) return null;
  const own = [...all].filter(([name]) => name.startsWith(base)).map(([name, tensor]) =>
    [name.slice(base.length), tensor] as const
  );
  if (own.some(([name]) => name.startsWith("decode_head.") && !isOfSegmentor(name))) return null;
  return {
    kind: "segmentor",
    tensors: new Map(own.filter(([name]) => isOfSegmentor(name))),
    leftOut: [...all.keys()].filter((name) =>
      !name.startsWith(base) || !isOfSegmentor(name.slice(base.length))
    ),
  };
};

/** Whether a tensor of mmsegmentation's is one of a ResNet or of fully convolutional heads. */
const isOfSegmentor = (name: string) =>
  name.startsWith("backbone.") && isOfEncoder(name.slice("backbone.".length)) ||
  /^(decode|auxiliary)_head\.(conv_seg\.(weight|bias)|(convs\.\d+|conv_cat)\.(conv\.weight|bn\.\w+))$/.test(
    name,
  );

/** Where an encoder's names begin, by the tensor that every ResNet has. */
const placeOf = (name: string): string[] => {
  const place = name.match(/^(|.*\.)(?:layer1|res2)\.0\.conv1\.weight$/)?.[1];
  return place === undefined ? [] : [place];
};

const longestPlace = (name: string, places: readonly string[]): number => {
  let best = -1;
  for (const [i, place] of places.entries()) {
    if (name.startsWith(place) && (best === -1 || place.length > places[best].length)) best = i;
  }
  return best;
};

const TEACHER = /(^|[._])(teacher|momentum|target|ema|encoder_k)[._]/;

/** The prefixes under which a student and a teacher are known here; null where it is not clear which is which. */
const rolesOf = (places: readonly string[]): readonly string[] | null => {
  const teachers = places.filter((place) => TEACHER.test(place));
  return places.length === 2 && teachers.length === 1
    ? places.map((place) => place === teachers[0] ? "encoder_k." : "encoder_q.")
    : null;
};

/** The role of an encoder that is the only one: none, unless a run of this method saved it. */
const ownRole = (place: string): string =>
  withoutWrappers(place).match(/(?:^|\.)(encoder_[qk]\.)$/)?.[1] ?? "";

/** A name without what PyTorch's wrappers of models add to it: `DataParallel` and `torch.compile`. */
export const withoutWrappers = (name: string): string =>
  name.replace(/(?<=^|\.)(module\.|_orig_mod\.)+/g, "");

const isOfEncoder = (name: string) => /^(conv1|bn1|layer[1-4])\./.test(name);

/** Whether a tensor belongs to the other modules of a run. */
const isOfHeads = (name: string) => /^((projector|grouping)_[qk]\.|predictor_slot\.|center$)/.test(name);

/** A name of detectron2's as torchvision has it; other names unchanged. */
const torchvisionName = (name: string): string =>
  /^(stem|res[2-5])\./.test(name)
    ? name.replace(/^stem\./, "")
      .replace(/^res(\d)\./, (_, stage) => `layer${stage - 1}.`)
      .replace(/\bconv(\d)\.norm\./, "bn$1.")
      .replace(/\bshortcut\.norm\./, "downsample.1.")
      .replace(/\bshortcut\./, "downsample.0.")
    : name;
