"""PyTorch on the CPU as a contender; see contender.ts for what is said over standard input and output."""
import ctypes
import json
import math
import os
import resource
import sys
import time

import torch
import torch.nn.functional as F

from torch_segmentation import IGNORED, SegmentationStep
from torch_slotcon import SlotConStep

torch.set_num_threads(len(os.sched_getaffinity(0)))
libc = ctypes.CDLL(None)
if hasattr(libc, "mallopt"):  # glibc would give large tensors back to the system, which hands out new pages slowly
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
CASES, CLASSES, RATE, MOMENTUM = (json.loads(sys.argv[1])[key] for key in ("cases", "classes", "rate", "momentum"))


def numbers(shape, seed, scale=1.0):
    """The same numbers as cases.ts gives, computed in vectors: state k is a^k s + (a^k - 1) / (a - 1) c."""
    count = math.prod(shape)
    state = torch.tensor([((seed + 1) * 2654435761) & 0xFFFFFFFF])
    a, c = 1664525, 1013904223
    power, offset = a, c  # of one step, then of 2, 4, ...
    states = (state * a + c) & 0xFFFFFFFF
    while len(states) < count:
        states = torch.cat([states, times(states, power) + offset & 0xFFFFFFFF])
        offset = (power * offset + offset) & 0xFFFFFFFF
        power = (power * power) & 0xFFFFFFFF
    return (scale * (states[:count].double() / 2**31 - 1)).float().reshape(shape)


def times(x, factor):
    """x times a factor modulo 2^32, in halves that 64 bits hold."""
    high, low = factor >> 16, factor & 0xFFFF
    return ((((x * high) & 0xFFFFFFFF) << 16) + x * low) & 0xFFFFFFFF


def channels_first(x, layout=torch.contiguous_format):
    return x.permute(0, 3, 1, 2).contiguous(memory_format=layout)


def output_first(w, layout=torch.contiguous_format):
    return w.permute(3, 2, 0, 1).contiguous(memory_format=layout)


def seed_of(name):
    seed = 7
    for letter in name:
        seed = (seed * 31 + ord(letter)) & 0xFFFFFFFF
    return seed


def initial_weights(name, shape):
    fan_out = shape[0] * shape[1] * shape[3] if len(shape) == 4 else shape[1]
    return numbers(shape, seed_of(name), math.sqrt(6 / fan_out))


def work_of(case):
    """The work as a function, and how its result becomes channels-last."""
    kind = case["kind"]
    if kind == "matmul":
        a, b = (numbers([case["size"]] * 2, seed) for seed in (1, 2))
        return lambda: a @ b, lambda y: y
    # Channels-last is faster, but for sums over the pixels of several taps.
    layout = torch.contiguous_format if kind == "weight gradient" and case["w"][0] > 1 else torch.channels_last
    x = channels_first(numbers(case["x"], 1), layout)
    if kind == "batch norm":
        scale, shift = (numbers(case["x"][3:], seed) for seed in (2, 3))
        return lambda: F.batch_norm(x, None, None, scale, shift, training=True), lambda y: y.permute(0, 2, 3, 1)
    w = output_first(numbers(case["w"], 2), layout)
    dy = channels_first(numbers(case["y"], 3), layout)
    how = {"stride": case["stride"], "padding": case["pad"], "dilation": case["dilation"]}
    if kind == "convolution":
        return lambda: F.conv2d(x, w, **how), lambda y: y.permute(0, 2, 3, 1)
    if kind == "input gradient":
        return lambda: torch.nn.grad.conv2d_input(x.shape, w, dy, **how), lambda y: y.permute(0, 2, 3, 1)
    return lambda: torch.nn.grad.conv2d_weight(x, w.shape, dy, **how), lambda y: y.permute(2, 3, 1, 0)


def step_of(shape):
    parameters = {}

    def parameter(name, make):
        if name not in parameters:
            parameters[name] = make().requires_grad_()
        return parameters[name]

    def convolution(x, name, shape, stride):
        w = parameter(name + ".w", lambda: output_first(initial_weights(name, shape)))
        return F.conv2d(x, w, stride=stride, padding=(shape[0] - 1) // 2)

    def normalization(x, name):
        scale = parameter(name + ".scale", lambda: torch.ones(x.shape[1]))
        shift = parameter(name + ".shift", lambda: torch.zeros(x.shape[1]))
        return F.batch_norm(x, None, None, scale, shift, training=True)

    def network(x):
        """resnet18.ts"""
        x = convolution(x, "stem", [7, 7, 3, 64], 2)
        x = F.max_pool2d(F.relu(normalization(x, "stem")), 3, 2, 1)
        inputs = 64
        for stage, channels in enumerate([64, 128, 256, 512]):
            for block in (0, 1):
                at, stride = f"{stage}.{block}", 2 if stage > 0 and block == 0 else 1
                y = F.relu(normalization(convolution(x, at + ".0", [3, 3, inputs, channels], stride), at + ".0"))
                y = normalization(convolution(y, at + ".1", [3, 3, channels, channels], 1), at + ".1")
                if inputs != channels:
                    down = convolution(x, at + ".down", [1, 1, inputs, channels], stride)
                    x = normalization(down, at + ".down")
                x = F.relu(x + y)
                inputs = channels
        return x.mean((2, 3)) @ parameter("head", lambda: initial_weights("head", [512, CLASSES]))

    images, classes = channels_first(numbers(shape, 1)), torch.arange(shape[0])
    network(images)
    optimizer = torch.optim.SGD(parameters.values(), lr=RATE, momentum=MOMENTUM)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), classes)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def slotcon_of(work):
    """The step on the views and with the weights of slotcon.ts."""

    def initial(name, shape):
        if len(shape) == 1:
            return torch.full(shape, 1.0 if name.endswith(".weight") else 0.0)
        if name.startswith("encoder"):
            deviation = math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        else:
            deviation = 1 if "slot_embed" in name else 0.02
        return numbers(shape, seed_of(name), deviation * math.sqrt(3))

    views, size = 2 * work["batchSize"], work["imageSize"]
    images = channels_first(numbers([views, size, size, 3], 1))
    boxes = numbers([views, 4], 2, 0.25) + torch.tensor([0.25, 0.25, 0.75, 0.75])
    flips = (numbers([views], 3) > 0).float()
    return SlotConStep(work, images, boxes, flips, initial)


def segmentation_of(work):
    """The step on the batch and with the weights of segmentation.ts."""

    def initial(name, shape):
        if len(shape) == 1:
            return torch.full(shape, 1.0 if name.endswith(".weight") else 0.0)
        deviation = 0.1 if "conv_seg" in name else math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        return numbers(shape, seed_of(name), deviation * math.sqrt(3))

    def kept(channels, seed):
        if work["dropout"] == 0:
            return None
        dropped = (numbers([batch, channels], seed).double() + 1) / 2 < work["dropout"]
        return (~dropped).float() / (1 - work["dropout"])

    batch, size, classes = work["batchSize"], work["cropSize"], work["classes"]
    images = channels_first(numbers([batch, size, size, 3], 1))
    labels = ((numbers([batch, size, size], 2).double() + 1) / 2 * (classes + 1)).long()
    labels[labels >= classes] = IGNORED
    factors = kept(work["headChannels"], 3), kept(work["auxiliaryChannels"], 4)
    return SegmentationStep(work, images, labels, factors, initial)


def training_of(case):
    if case["kind"] == "SlotCon step":
        return slotcon_of(case["work"])
    if case["kind"] == "segmentation step":
        return segmentation_of(case["work"])
    return step_of(case["images"])


once = None
print("{}", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "prepare" in request:
        case = CASES[request["prepare"]]
        if case["kind"].endswith(" step"):
            once = training_of(case)
            answer = torch.stack([once() for _ in range(3)]).flatten()
        else:
            once, channels_last = work_of(case)
            answer = channels_last(once()).flatten()
        count = min(64, len(answer))
        print(json.dumps({"sample": [answer[len(answer) * i // count].item() for i in range(count)]}), flush=True)
    else:
        start = time.perf_counter()
        for _ in range(request["run"]):
            once()
        milliseconds = (time.perf_counter() - start) * 1e3
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # at most so far
        print(json.dumps({"milliseconds": milliseconds, "resident": resident}), flush=True)
