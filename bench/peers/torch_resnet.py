"""The encoders of pipeline/model/resnet.ts in PyTorch, by torchvision's names."""
from collections import OrderedDict

from torch import nn
from torch.nn import functional as F


def convolution(inputs, outputs, taps, stride=1, dilation=1):
    return nn.Conv2d(inputs, outputs, taps, stride, taps // 2 * dilation, dilation, bias=False)


class Block(nn.Module):
    """A residual block: two 3×3 convolutions, or one between two 1×1 where there are more outputs than planes."""

    def __init__(self, inputs, planes, outputs, stride, dilation, norm):
        super().__init__()
        if outputs == planes:
            self.conv1, self.bn1 = convolution(inputs, planes, 3, stride, dilation), norm(planes)
            self.conv2, self.bn2 = convolution(planes, outputs, 3, 1, dilation), norm(outputs)
        else:
            self.conv1, self.bn1 = convolution(inputs, planes, 1), norm(planes)
            self.conv2, self.bn2 = convolution(planes, planes, 3, stride, dilation), norm(planes)
            self.conv3, self.bn3 = convolution(planes, outputs, 1), norm(outputs)
        self.bottleneck = outputs > planes
        if inputs != outputs or stride > 1:
            self.downsample = nn.Sequential(convolution(inputs, outputs, 1, stride), norm(outputs))
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(F.relu_(y)))
        return F.relu_(y.add_(self.downsample(x)))


ARCHITECTURES = {"resnet18": ([2, 2, 2, 2], 1), "resnet50": ([3, 4, 6, 3], 4)}


def channels_of(arch, width):
    """The channels of the four stages' outputs."""
    return [width * 2**stage * ARCHITECTURES[arch][1] for stage in range(4)]


def encoder(arch, width, norm, output_stride=32):
    """
    A ResNet up to its last map. Once the output stride is reached, stages dilate instead of striding; the first block of
    such a stage has half of its dilation.
    """
    counts, _ = ARCHITECTURES[arch]
    layers = OrderedDict(
        conv1=convolution(3, width, 7, 2), bn1=norm(width), relu=nn.ReLU(inplace=True), pool=nn.MaxPool2d(3, 2, 1)
    )
    inputs, reached, dilation = width, 4, 1
    for stage, outputs in enumerate(channels_of(arch, width)):
        first = dilation
        stride = 2 if stage > 0 and reached < output_stride else 1
        if stage > 0 and stride == 1:
            dilation *= 2
        reached *= stride
        blocks = [Block(inputs, width * 2**stage, outputs, stride, first, norm)]
        for _ in range(counts[stage] - 1):
            blocks.append(Block(outputs, width * 2**stage, outputs, 1, dilation, norm))
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
        inputs = outputs
    return nn.Sequential(layers)
