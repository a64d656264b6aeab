"""The SlotCon step of pipeline/step.ts in PyTorch, for one process, written to be fast on a CPU.

Both views are one batch [2B, ...], the first views before the second. Maps [2B, C, h, w] lie channels-last in memory, so
that their pixels are rows without a copy.
"""
import copy
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from torch_resnet import channels_of, encoder

TRUST = 0.001
CONTRAST_TEMPERATURE = 0.2


class ViewNorm(nn.BatchNorm2d):
    """Batch norm with statistics of each view's own."""

    def forward(self, x):
        first, second = x.chunk(2)
        return torch.cat([super().forward(first), super().forward(second)])


def head(inputs, hidden, outputs, layer, norm):
    """Projector, of pixels, or predictor, of rows."""
    layers = [layer(inputs, hidden), norm(hidden), nn.GELU(), layer(hidden, hidden), norm(hidden), nn.GELU()]
    return nn.Sequential(OrderedDict(mlp=nn.Sequential(*layers, layer(hidden, outputs))))


class Side(nn.Module):
    """The encoder, projector and prototypes of the student or the teacher."""

    def __init__(self, work):
        super().__init__()
        channels = channels_of(work["arch"], work["width"])[-1]
        pixelwise = lambda inputs, outputs: nn.Conv2d(inputs, outputs, 1)
        self.encoder = encoder(work["arch"], work["width"], ViewNorm)
        self.projector = head(channels, work["dimHidden"], work["dimOut"], pixelwise, ViewNorm)
        self.grouping = nn.ModuleDict({"slot_embed": nn.Embedding(work["numPrototypes"], work["dimOut"])})
        self.temperature = work["teacherTemp"]

    def forward(self, images):
        """Images [2B, 3, S, S] to cosines [2B, h, w, K] and slots [2B, K, D]."""
        x = self.projector(self.encoder(images)).permute(0, 2, 3, 1)
        cosines = F.normalize(x, dim=3) @ F.normalize(self.grouping["slot_embed"].weight, dim=1).t()
        attention = (F.softmax(cosines / self.temperature, dim=3) + 1e-6).flatten(1, 2)
        slots = attention.transpose(1, 2) @ x.flatten(1, 2) / attention.sum(1).unsqueeze(2)
        return cosines, slots


def aligned(cosines, boxes, flips):
    """RoIAlign of a box in each map, upright, [2B, h, w, K]: in a box within its map that is one sample a cell."""
    x1, y1, x2, y2 = boxes.unbind(1)
    none = torch.zeros_like(x1)
    across = [(1 - 2 * flips) * (x2 - x1), none, x1 + x2 - 1]
    down = [none, y2 - y1, y1 + y2 - 1]
    maps = cosines.permute(0, 3, 1, 2)
    grid = F.affine_grid(torch.stack(across + down, 1).view(-1, 2, 3), maps.shape, align_corners=False)
    samples = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    overlapping = (x2 > x1) & (y2 > y1)
    return (samples * overlapping.view(-1, 1, 1, 1)).permute(0, 2, 3, 1)


def used(cosines):
    """Which slots win a location, [2B, K]."""
    winners = cosines.argmax(3).flatten(1)
    return torch.zeros(len(cosines), cosines.shape[3], dtype=torch.bool).scatter_(1, winners, True)


class SlotConStep:
    """A step a call, which returns the losses of grouping and of slots, weighted, [2]."""

    def __init__(self, work, images, boxes, flips, initial):
        """Images [2B, 3, S, S], boxes [2B, 4], flips [2B]; `initial` gives a weight by its name and shape."""
        self.work, self.boxes, self.flips = work, boxes, flips
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.student = Side(work)
        self.predictor = head(work["dimOut"], work["dimHidden"], work["dimOut"], nn.Linear, nn.BatchNorm1d)
        for name, weight in self.student.named_parameters():
            weight.data = initial(name.replace(".", "_q.", 1), weight.shape)
        for name, weight in self.predictor.named_parameters():
            weight.data = initial("predictor_slot." + name, weight.shape)
        self.student.to(memory_format=torch.channels_last)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.learned = [*self.student.parameters(), *self.predictor.parameters()]
        self.velocities = [torch.zeros_like(weight) for weight in self.learned]
        self.center = torch.zeros(work["numPrototypes"])

    def __call__(self):
        for weight in self.learned:
            weight.grad = None
        student = self.student(self.images)
        with torch.no_grad():
            for own, weight in zip(self.teacher.parameters(), self.student.parameters()):
                own.lerp_(weight, 1 - self.work["teacherMomentum"])
            teacher = self.teacher(self.images)

        share = self.work["groupLossWeight"]
        losses = torch.stack([
            share * self.distillation(student, teacher), (1 - share) * self.contrast(student, teacher),
        ])
        self.center.lerp_(teacher[0].mean((0, 1, 2)), 1 - self.work["centerMomentum"])
        losses.sum().backward()
        self.move()
        return losses.detach()

    def distillation(self, student, teacher):
        """The loss of the student's first view beside the teacher's second, and of the second beside the first."""
        own, other = (aligned(cosines, self.boxes, self.flips) for cosines, _ in (student, teacher))
        target = F.softmax((other - self.center) / self.work["teacherTemp"], dim=3)
        scores = F.log_softmax(own / self.work["studentTemp"], dim=3)
        return -2 * (target.roll(len(own) // 2, 0) * scores).sum(3).mean()

    def contrast(self, student, teacher):
        """The same pairs of views: slots of one are told apart among those that the teacher uses in the other."""
        own_used, other_used = (used(cosines.detach()).chunk(2) for cosines, _ in (student, teacher))
        own_slots, other_slots = (slots.chunk(2) for _, slots in (student, teacher))
        loss = 0
        for a, b in (0, 1), (1, 0):
            positive = own_used[a] & other_used[b]
            queries = F.normalize(self.predictor(own_slots[a][positive]), dim=1)
            keys = F.normalize(other_slots[b][other_used[b]], dim=1)
            labels = (other_used[b].flatten().cumsum(0) - 1)[positive.flatten()]
            loss += F.cross_entropy(queries @ keys.t() / CONTRAST_TEMPERATURE, labels)
        return 2 * CONTRAST_TEMPERATURE * loss

    @torch.no_grad()
    def move(self):
        """LARS; parameters of one dimension take neither decay nor scaling."""
        for weight, velocity in zip(self.learned, self.velocities):
            slope, ratio = weight.grad, 1
            if weight.ndim > 1:
                slope.add_(weight, alpha=self.work["weightDecay"])
                size, steepness = weight.norm().item(), slope.norm().item()
                ratio = TRUST * size / steepness if size * steepness > 0 else 1
            velocity.mul_(self.work["momentum"]).add_(slope, alpha=ratio)
            weight.sub_(velocity, alpha=self.work["learningRate"])
