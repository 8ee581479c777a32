"""Networks whose weights are inside packages, written down anew: MTCNN, dlib's face network, ImageNet's MobileNetV2."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from library.metrics.networks.face_detector import DetectedFace
from tests.real.packages import FACE_FINDER, FACE_KNOWER, SEER, read_files

Weights = Mapping[str, Tensor]


def load_weights(pattern: str, ending: str) -> dict[str, Weights]:
    return {
        name: torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        for name, content in read_files(pattern, ending).items()
    }


# --- MTCNN (Zhang et al. 2016): three networks, each looks closer at what the one before has found

FACTOR, SMALLEST = 0.709, 40  # of one scale to the next; pixels of the smallest face
PROPOSED, REFINED, SURE = 0.6, 0.7, 0.95
Boxes = np.ndarray
"""(boxes, 4): left, top, right, bottom."""


class Mtcnn:
    """Finds faces as `FaceDetector` does, the largest first."""

    def __init__(self) -> None:
        nets = load_weights(FACE_FINDER, ".pt")
        self._p, self._r, self._o = nets["pnet.pt"], nets["rnet.pt"], nets["onet.pt"]

    @torch.no_grad()
    def find(self, photo: np.ndarray, smallest: int = 0) -> list[DetectedFace]:
        boxes = self._propose(photo)
        boxes, _, _ = self._look(photo, boxes, 24, self._refine, REFINED)
        boxes, scores, landmarks = self._look(photo, boxes, 48, self._output, SURE)
        found = [
            DetectedFace((x0, y0, x1 - x0, y1 - y0), points, float(score))
            for (x0, y0, x1, y1), score, points in zip(boxes.tolist(), scores, landmarks, strict=True)
            if x1 - x0 >= smallest
        ]
        return sorted(found, key=lambda face: face.box[2] * face.box[3], reverse=True)

    def _propose(self, photo: np.ndarray) -> Boxes:
        scale, found = 12 / SMALLEST, []
        while min(photo.shape[:2]) * scale >= 12:
            small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            x = _convolutions(self._p, _around_zero(small[None]), ((2, True), (None, True), (None, True)))
            score = _conv(self._p, "conv4_1", x).softmax(1)[0, 1].numpy()
            shift = _conv(self._p, "conv4_2", x)[0].numpy()
            rows, columns = np.nonzero(score >= PROPOSED)
            corners = np.stack([2 * columns, 2 * rows, 2 * columns + 12, 2 * rows + 12], 1) / scale
            boxes = corners + shift[:, rows, columns].T * (12 / scale)
            kept = _without_overlaps(boxes, score[rows, columns], 0.5)
            found += [(boxes[index], score[rows[index], columns[index]]) for index in kept]
            scale *= FACTOR
        boxes, scores = np.array([box for box, _ in found]).reshape(-1, 4), np.array([score for _, score in found])
        return boxes[_without_overlaps(boxes, scores, 0.7)]

    def _look(self, photo, boxes, side, network, least):
        """Boxes, scores and landmarks of those that are faces, as a network sees them closer."""
        if not len(boxes):
            return boxes, np.zeros(0), np.zeros((0, 5, 2))
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, np.max(boxes[:, 2:] - boxes[:, :2], axis=1) / 2
        squares = np.concatenate([middle - half[:, None], middle + half[:, None]], 1)
        score, shift, points = network(_around_zero(np.stack([_cut(photo, square, side) for square in squares])))
        sides = 2 * half[:, None]
        boxes = squares + shift * sides
        landmarks = squares[:, None, :2] + points * sides[:, None]
        sure = score >= least
        kept = np.flatnonzero(sure)[_without_overlaps(boxes[sure], score[sure], 0.6)]
        return boxes[kept], score[kept], landmarks[kept]

    def _refine(self, x: Tensor):
        x = _convolutions(self._r, x, ((3, True), (3, True), (None, True)))
        x = _prelu(self._r, 4, _dense(self._r, "dense4", x.permute(0, 3, 2, 1).flatten(1)))
        score = _dense(self._r, "dense5_1", x).softmax(1)[:, 1].numpy()
        return score, _dense(self._r, "dense5_2", x).numpy(), np.zeros((len(x), 5, 2))

    def _output(self, x: Tensor):
        x = _convolutions(self._o, x, ((3, True), (3, True), (2, True), (None, True)))
        x = _prelu(self._o, 5, _dense(self._o, "dense5", x.permute(0, 3, 2, 1).flatten(1)))
        score = _dense(self._o, "dense6_1", x).softmax(1)[:, 1].numpy()
        points = _dense(self._o, "dense6_3", x).numpy().reshape(-1, 2, 5).transpose(0, 2, 1)
        return score, _dense(self._o, "dense6_2", x).numpy(), points


def _around_zero(pictures: np.ndarray) -> Tensor:
    return (torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() - 127.5) / 128


def _cut(photo: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """A square of the photo, black where it leaves it."""
    share = side / (box[2] - box[0])
    matrix = np.array([(share, 0, -box[0] * share), (0, share, -box[1] * share)])
    flags = cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(photo, matrix, (side, side), flags=flags)


def _conv(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _dense(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _prelu(weights: Weights, number: int, x: Tensor) -> Tensor:
    return F.prelu(x, weights[f"prelu{number}.weight"])


def _convolutions(weights: Weights, x: Tensor, pools: tuple) -> Tensor:
    for number, (pool, _) in enumerate(pools, start=1):
        x = _prelu(weights, number, _conv(weights, f"conv{number}", x))
        x = x if pool is None else F.max_pool2d(x, pool, 2, ceil_mode=True)
    return x


def _without_overlaps(boxes: Boxes, scores: np.ndarray, most: float) -> list[int]:
    """Indices of boxes that no better one overlaps by more than `most` of their union."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-scores):
        low = np.maximum(boxes[kept, :2], boxes[index, :2])
        high = np.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = np.clip(high - low, 0, None).prod(1)
        if not (shared > most * (areas[kept] + areas[index] - shared)).any():
            kept.append(int(index))
    return kept


# --- dlib's face network: a ResNet of 29 convolutions, faces of 150 pixels to 128 numbers

MEAN_COLOUR = torch.tensor([122.782, 117.001, 104.298])[:, None, None]
SAME_PERSON = 0.6  # distance of two faces below which dlib takes them for one person
# Where the square that the network wants lies in the face that ArcFace wants, 112 pixels: eyes and mouth at its places.
CHIP = (6.8, 22.8, 105.3, 121.3)


class DlibNetwork:
    """Reads faces that `cut_face` has cut."""

    def __init__(self) -> None:
        manifest = json.loads(read_files(FACE_KNOWER, "face_recognition_model-weights_manifest.json").popitem()[1])
        content = read_files(FACE_KNOWER, "face_recognition_model.bin").popitem()[1]
        self._weights, place = {}, 0
        for entry in manifest[0]["weights"]:
            shape, stored = entry["shape"], entry.get("quantization")
            dtype = np.dtype(stored["dtype"] if stored else entry["dtype"])
            values = np.frombuffer(content, dtype, int(np.prod(shape)), place).reshape(shape)
            place += values.nbytes
            real = values * stored["scale"] + stored["min"] if stored else values
            self._weights[entry["name"]] = torch.tensor(real, dtype=torch.float32)

    @torch.no_grad()
    def __call__(self, face: np.ndarray) -> np.ndarray:
        chip = _cut(cv2.copyMakeBorder(face, 0, 16, 0, 0, cv2.BORDER_REPLICATE), np.array(CHIP), 150)
        x = (torch.from_numpy(chip).permute(2, 0, 1).float() - MEAN_COLOUR)[None] / 255
        x = F.max_pool2d(self._scaled(x, "conv32_down", 2).relu(), 3, 2)
        for name in ["32_1", "32_2", "32_3", "64_down", "64_1", "64_2", "64_3", "128_down", "128_1", "128_2"]:
            x = self._residual(x, f"conv{name}")
        for name in ["256_down", "256_1", "256_2", "256_down_out"]:
            x = self._residual(x, f"conv{name}")
        return (x.mean((2, 3)) @ self._weights["fc"])[0].double().numpy()

    def _scaled(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        filters = self._weights[f"{name}/conv/filters"].permute(3, 2, 0, 1)
        padding = filters.shape[-1] // 2 if stride == 1 else 0
        x = F.conv2d(x, filters, self._weights[f"{name}/conv/bias"], stride, padding)
        scale, bias = (self._weights[f"{name}/scale/{part}"][:, None, None] for part in ("weights", "biases"))
        return x * scale + bias

    def _residual(self, x: Tensor, name: str) -> Tensor:
        down = "down" in name
        out = self._scaled(x, f"{name}/conv1", 2 if down else 1).relu()
        out = self._scaled(out, f"{name}/conv2")
        if down:
            x = F.avg_pool2d(x, 2, 2)
            out = F.pad(out, (0, x.shape[-1] - out.shape[-1], 0, x.shape[-2] - out.shape[-2]))
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return (x + out).relu()


# --- MobileNetV2 (Sandler et al. 2018): what ImageNet taught it to see

STAGES = ((1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1))  # expansion, blocks, stride
IMAGENET_MEAN, IMAGENET_STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class MobileNet:
    """Pictures to 1280 numbers each."""

    def __init__(self) -> None:
        self._weights = load_weights(SEER, ".pth").popitem()[1]

    @torch.no_grad()
    def __call__(self, pictures: list[np.ndarray]) -> np.ndarray:
        resized = np.stack([cv2.resize(p, (224, 224), interpolation=cv2.INTER_AREA) for p in pictures])
        x = ((torch.from_numpy(resized).float() / 255 - IMAGENET_MEAN) / IMAGENET_STD).permute(0, 3, 1, 2)
        x = self._normed(x, "features.0.0", "features.0.1", stride=2).clamp(0, 6)
        number = 0
        for expansion, blocks, first_stride in STAGES:
            for block in range(blocks):
                number += 1
                x = self._inverted(x, f"features.{number}.conv", expansion, first_stride if block == 0 else 1)
        x = self._normed(x, "features.18.0", "features.18.1").clamp(0, 6)
        return x.mean((2, 3)).double().numpy()

    def _inverted(self, x: Tensor, name: str, expansion: int, stride: int) -> Tensor:
        out, part = x, 0
        if expansion > 1:
            out, part = self._normed(out, f"{name}.0.0", f"{name}.0.1").clamp(0, 6), 1
        out = self._normed(out, f"{name}.{part}.0", f"{name}.{part}.1", stride, out.shape[1]).clamp(0, 6)
        out = self._normed(out, f"{name}.{part + 1}", f"{name}.{part + 2}")
        return out + x if out.shape == x.shape else out

    def _normed(self, x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self._weights[f"{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        mean, var, scale, bias = (
            self._weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, bias)
