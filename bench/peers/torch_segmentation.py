"""
The step of pipeline/transfer/segmentation/step.ts in PyTorch, for one process: mmsegmentation's fully convolutional
networks by its names, maps channels-last in memory.
"""
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from torch_resnet import channels_of, convolution, encoder

IGNORED = 255


def unit(inputs, outputs, dilation=1):
    layers = OrderedDict(
        conv=convolution(inputs, outputs, 3, dilation=dilation), bn=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)
    )
    return nn.Sequential(layers)


class Head(nn.Module):
    """A map [B, C, h, w] and factors of the channels before the classifier, [B, channels, 1, 1], to logits [B, K, h, w]."""

    def __init__(self, inputs, channels, classes, convolutions, dilation=1, concat_input=False):
        super().__init__()
        sizes = [inputs] + [channels] * convolutions
        self.convs = nn.Sequential(*[unit(*pair, dilation) for pair in zip(sizes, sizes[1:])])
        self.conv_cat = unit(inputs + channels, channels) if concat_input else None
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, x, kept):
        y = self.convs(x)
        if self.conv_cat is not None:
            y = self.conv_cat(torch.cat([x, y], 1))
        return self.conv_seg(y if kept is None else y * kept)


class Segmentor(nn.Module):
    """Images [B, 3, S, S] to the logits of each head."""

    def __init__(self, work):
        super().__init__()
        _, _, third, last = channels_of(work["arch"], work["width"])
        self.backbone = encoder(work["arch"], work["width"], nn.BatchNorm2d, work["outputStride"])
        self.decode_head = Head(
            last, work["headChannels"], work["classes"], 2, work["headDilation"], work["concatInput"]
        )
        if work["auxiliaryWeight"] > 0:
            self.auxiliary_head = Head(third, work["auxiliaryChannels"], work["classes"], 1)
        else:
            self.auxiliary_head = None

    def forward(self, images, kept_head, kept_auxiliary):
        third = self.backbone[:-1](images)
        logits = [self.decode_head(self.backbone[-1](third), kept_head)]
        if self.auxiliary_head is not None:
            logits.append(self.auxiliary_head(third, kept_auxiliary))
        return logits


class SegmentationStep:
    """A step a call, which returns the losses of the heads, weighted, [1] or [2]."""

    def __init__(self, work, images, labels, kept, initial):
        """
        Images [B, 3, S, S], labels [B, S, S], factors of channels [B, channels] or None for each head; `initial` gives a
        weight by its name and shape.
        """
        self.work, self.labels = work, labels
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.kept = [None if each is None else each[:, :, None, None] for each in kept]
        self.segmentor = Segmentor(work)
        for name, weight in self.segmentor.named_parameters():
            weight.data = initial(name, weight.shape)
        self.segmentor.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.segmentor.parameters(),
            lr=work["learningRate"],
            momentum=work["momentum"],
            weight_decay=work["weightDecay"],
        )

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.segmentor(self.images, *self.kept)
        losses = torch.stack([
            weight * self.loss(each) for weight, each in zip([1, self.work["auxiliaryWeight"]], logits)
        ])
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()

    def loss(self, logits):
        """A mean over all pixels, to which those that are ignored contribute 0."""
        enlarged = F.interpolate(
            logits, self.labels.shape[1:], mode="bilinear", align_corners=self.work["alignCorners"]
        )
        total = F.cross_entropy(enlarged, self.labels, ignore_index=IGNORED, reduction="sum")
        return total / self.labels.numel()
