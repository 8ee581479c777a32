"""The Inception network of FID, with torch-fidelity's tensor names, so that its file and pytorch-fid's load as is.

It is torchvision's Inception v3 as TensorFlow's graph of 2015-12-05 has it: average pooling does not count the padding,
the last block pools by maximum, and there are 1008 classes. Features leave it at 64, 192, 768 and 2048 dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from library.errors import UserError
from library.files import read_tensors
from library.metrics.features import FeatureNetwork
from library.metrics.preprocess import INCEPTION

LAYERS = (64, 192, 768, 2048)


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, *, same: bool = True):
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else 0
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def valid(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Convolution:
    """A convolution that looks only where there is a picture."""
    return Convolution(inputs, outputs, kernel, stride, same=False)


def mean_of_neighbours(x: Tensor) -> Tensor:
    """3 x 3 average pooling that does not count what lies beyond the edge, as TensorFlow's."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35: 1 x 1, 5 x 5, twice 3 x 3, pooling."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64, 1)
        self.branch5x5_1 = Convolution(inputs, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3)
        self.branch_pool = Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        fives = self.branch5x5_2(self.branch5x5_1(x))
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), fives, threes, self.branch_pool(mean_of_neighbours(x))], 1)


class BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = valid(inputs, 384, 3, 2)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = valid(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), threes, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17 x 17: 1 x 1, one and two 7 x 7 as rows and columns, pooling."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = Convolution(inputs, 192, 1)
        self.branch7x7_1 = Convolution(inputs, inner, 1)
        self.branch7x7_2 = Convolution(inner, inner, row)
        self.branch7x7_3 = Convolution(inner, 192, column)
        self.branch7x7dbl_1 = Convolution(inputs, inner, 1)
        self.branch7x7dbl_2 = Convolution(inner, inner, column)
        self.branch7x7dbl_3 = Convolution(inner, inner, row)
        self.branch7x7dbl_4 = Convolution(inner, inner, column)
        self.branch7x7dbl_5 = Convolution(inner, 192, row)
        self.branch_pool = Convolution(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(mean_of_neighbours(x))], 1)


class BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(inputs, 192, 1)
        self.branch3x3_2 = valid(192, 320, 3, 2)
        self.branch7x7x3_1 = Convolution(inputs, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = valid(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        sevens = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(sevens), F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8 x 8: rows and columns of 3 beside each other. The last block of the network pools by maximum."""

    def __init__(self, inputs: int, *, by_maximum: bool) -> None:
        super().__init__()
        self.by_maximum = by_maximum
        self.branch1x1 = Convolution(inputs, 320, 1)
        self.branch3x3_1 = Convolution(inputs, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, (1, 3))
        self.branch3x3_2b = Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1 = Convolution(inputs, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1))
        self.branch_pool = Convolution(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch3x3_1(x)
        two = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.by_maximum else mean_of_neighbours(x)
        return torch.cat(
            [
                self.branch1x1(x),
                *(self.branch3x3_2a(one), self.branch3x3_2b(one)),
                *(self.branch3x3dbl_3a(two), self.branch3x3dbl_3b(two)),
                self.branch_pool(pooled),
            ],
            1,
        )


class Inception(nn.Module):
    """566 tensors, of which the classifier's two are read and not used."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = valid(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = valid(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = valid(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(768, 128), BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, by_maximum=False), BlockE(2048, by_maximum=True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor, layer: int = 2048) -> Tensor:
        """(n, 3, 299, 299) in about -1..1 -> the mean over places at one of `LAYERS`: (n, layer)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)  # (n, 64, 73, 73)
        if layer > 64:
            x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)  # (n, 192, 35, 35)
        if layer > 192:
            x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
            x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))  # (n, 768, 17, 17)
        if layer > 768:
            x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (n, 2048, 8, 8)
        return x.mean(dim=(2, 3))


def load_inception(path: Path, device: str = "cpu") -> Inception:
    """Strictly: every tensor of the file has its place, and every place its tensor. Raises UserError."""
    tensors, _ = read_tensors(path)
    with torch.device("meta"):
        model = Inception()
    places = model.state_dict()
    # Counters of the training; older files have none, and nothing reads them.
    tensors |= {n: torch.tensor(0) for n in places if n.endswith("num_batches_tracked") and n not in tensors}
    wrong = [n for n in places if n not in tensors or tensors[n].shape != places[n].shape]
    wrong += [n for n in tensors if n not in places]
    if wrong:
        raise UserError(
            f"'{path}' is not the Inception of FID: {len(wrong)} tensors are missing, unknown or of another shape, the "
            f"first {wrong[0]}; pt_inception-2015-12-05-6726825d.pth is"
        )
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False).float().to(device)


def inception_network(
    model: Inception, layer: int, sha256: str, resize: str = "clean", device: str = "cpu"
) -> FeatureNetwork:
    """Its features at `layer`, of pictures that are resized in the `clean` or the `legacy` way."""
    how = INCEPTION[resize]

    def see(images: Sequence[Image.Image]) -> Tensor:
        return model(torch.stack([how.prepare(image) for image in images]).to(device), layer)

    return FeatureNetwork(f"inception-{layer}", sha256, how.name, see)
