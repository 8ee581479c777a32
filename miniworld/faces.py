"""A portrait, drawn from back to front. Eyes, mouth and glasses are large and bold, so that a small VAE keeps them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from miniworld.canvas import SIZE, Canvas, Point, fixed_point
from miniworld.identities import Identity
from miniworld.palette import (
    CLOTHES,
    COLOURS,
    EYE_COLOURS,
    HAIR_COLOURS,
    SKINS,
    Colour,
    darker,
    jittered,
    lighter,
    mixed,
)

EXPRESSIONS = ("neutral", "smiling", "sad", "surprised")
SIDES = (-1, 1)
INK: Colour = (30, 25, 28)


@dataclass(frozen=True)
class _Pose:
    """Where the face is on the canvas, and its measures in pixels."""

    x: float
    y: float
    unit: float
    """Half the width of an average face: every length below is a part of it."""
    half_width: float
    half_height: float
    turn: float
    """How far the features move sideways: a hint of a turned head."""
    skin: Colour
    hair: Colour

    @property
    def features_x(self) -> float:
        return self.x + self.turn

    @property
    def eyes_y(self) -> float:
        return self.y - self.unit * 0.1

    @property
    def top(self) -> float:
        return self.y - self.half_height


def draw_face(
    rng: np.random.Generator, identity: Identity, background: str, expression: str, hat: str | None = None
) -> Canvas:
    """A portrait of `identity` before a plain background; position, size, turn and shades vary with `rng`."""
    backdrop = jittered(rng, COLOURS[background], 8)
    canvas = Canvas(lighter(backdrop, 0.12), darker(backdrop, 0.88))
    pose = _pose(rng, identity)
    _hair_behind(canvas, identity, pose)
    _body(canvas, identity, pose, jittered(rng, CLOTHES[identity.clothes], 6))
    _head(canvas, identity, pose)
    _cheeks(canvas, identity, pose)
    if identity.beard == "beard":
        _beard(canvas, identity, pose)
    _eyes(canvas, identity, pose, expression)
    _nose(canvas, identity, pose)
    _mouth(canvas, identity, pose, expression)
    if any(identity.mole):
        across, down = identity.mole
        x, y = pose.features_x + across * pose.half_width, pose.y + down * pose.half_height
        canvas.circle(x, y, pose.unit * 0.085, (55, 30, 25))
    _hair_before(canvas, identity, pose)
    _brows(canvas, identity, pose, expression)
    if hat:
        _hat(canvas, pose, COLOURS[hat])
    if identity.glasses != "none":
        _glasses(canvas, identity, pose)
    return canvas


def _pose(rng: np.random.Generator, identity: Identity) -> _Pose:
    unit = SIZE * 0.285 * rng.uniform(0.93, 1.05)
    return _Pose(
        x=SIZE * 0.5 + rng.normal(0, 5),
        y=SIZE * 0.53 + rng.normal(0, 4),
        unit=unit,
        half_width=unit * identity.face_width,
        half_height=unit * 1.18,
        turn=float(np.clip(rng.normal(0, 0.03), -0.06, 0.06)) * SIZE,
        skin=jittered(rng, SKINS[identity.skin], 5),
        hair=HAIR_COLOURS[identity.hair_colour],
    )


def _hair_behind(canvas: Canvas, identity: Identity, pose: _Pose) -> None:
    x, y, unit, shade = pose.x, pose.y, pose.unit, darker(pose.hair, 0.86)
    width, height = pose.half_width, pose.half_height
    if identity.hair_style == "long":
        canvas.ellipse(x, y - unit * 0.1, width * 1.27, height * 1.15, shade)
        canvas.rectangle(x - width * 1.27, y, x + width * 1.27, y + unit * 1.75, shade)
    elif identity.hair_style == "bobbed":
        canvas.ellipse(x, y - unit * 0.05, width * 1.32, height * 1.12, shade)
        canvas.rectangle(x - width * 1.32, y, x + width * 1.32, y + unit * 0.72, shade)
    elif identity.hair_style == "curly":
        for angle in np.linspace(math.pi * 0.9, math.pi * 2.1, 11):
            curl_x, curl_y = x + width * 1.05 * math.cos(angle), y - unit * 0.15 + height * math.sin(angle)
            canvas.circle(curl_x, curl_y, unit * 0.34, shade)


def _body(canvas: Canvas, identity: Identity, pose: _Pose, clothes: Colour) -> None:
    x, y, unit, shade = pose.x, pose.y, pose.unit, darker(pose.skin, 0.84)
    shoulders, neck = (1.65, 0.42) if identity.gender == "man" else (1.35, 0.3)
    canvas.ellipse(x, y + unit * 2.25, unit * shoulders, unit * 0.95, clothes)
    canvas.rectangle(x - unit * neck, y + unit * 0.8, x + unit * neck, y + unit * 1.5, shade)
    canvas.ellipse(x, y + unit * 1.42, unit * (neck + 0.08), unit * 0.2, shade)
    for side in SIDES:
        canvas.ellipse(x + side * pose.half_width * 0.98, y + unit * 0.05, unit * 0.14, unit * 0.22, shade)
        if identity.earrings:
            canvas.circle(x + side * pose.half_width * 1.03, y + unit * 0.36, unit * 0.11, (255, 215, 60))


def _narrowing(identity: Identity, sine: np.ndarray | float) -> np.ndarray | float:
    """How much narrower the face is at the height of an angle with this sine: the jaw tapers, the forehead does not."""
    return 1 - (1 - identity.jaw) * 0.55 * np.clip(sine, 0, 1) ** 1.5


def _head(canvas: Canvas, identity: Identity, pose: _Pose) -> None:
    angle = np.linspace(0, 2 * math.pi, 60)
    across = pose.half_width * np.cos(angle) * _narrowing(identity, np.sin(angle))
    down = pose.half_height * np.sin(angle) * (1 + 0.06 * np.clip(np.sin(angle), 0, 1))
    outline = np.stack([pose.x + across, pose.y + down], 1)  # (60, 2)
    canvas.polygon(outline, pose.skin)
    inside = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(inside, [fixed_point(outline)], (255,), cv2.LINE_AA, 4)
    towards_right = np.clip((np.arange(SIZE) - pose.x) / pose.half_width, 0, 1)
    light = np.broadcast_to(1 - 0.13 * towards_right**2, (SIZE, SIZE))  # the light comes from the left
    light = np.where(inside > 127, light, 1.0).astype(np.float32)
    canvas.pixels = cv2.multiply(canvas.pixels, cv2.merge([light, light, light]), dtype=cv2.CV_8U)


def _cheeks(canvas: Canvas, identity: Identity, pose: _Pose) -> None:
    unit, x, y = pose.unit, pose.features_x, pose.y
    blush = mixed(pose.skin, (235, 100, 105), 0.35 if identity.gender == "woman" else 0.14)
    for side in SIDES:
        canvas.ellipse(x + side * unit * 0.55, y + unit * 0.38, unit * 0.17, unit * 0.11, blush)
    if identity.freckles:
        for side in SIDES:
            for across, down in ((0.62, 0.26), (0.47, 0.38), (0.34, 0.26), (0.55, 0.5)):
                canvas.circle(x + side * across * unit, y + down * unit, unit * 0.05, darker(pose.skin, 0.62))


def _beard(canvas: Canvas, identity: Identity, pose: _Pose) -> None:
    angles = np.linspace(0.06 * math.pi, 0.94 * math.pi, 30)
    outer: list[Point] = []
    for a in angles:
        narrowing = float(_narrowing(identity, math.sin(a)))
        outer.append(
            (pose.x + pose.half_width * math.cos(a) * narrowing, pose.y + pose.half_height * 1.12 * math.sin(a))
        )
    inner = [
        (
            pose.x + pose.half_width * 0.64 * math.cos(a),
            pose.y + pose.unit * 0.3 + pose.half_height * 0.22 * math.sin(a),
        )
        for a in angles[::-1]
    ]
    canvas.polygon(outer + inner, pose.hair)


def _eye_measures(identity: Identity, pose: _Pose) -> tuple[float, float]:
    """Distance of an eye from the middle of the face, and its radius."""
    return pose.unit * 0.43 * identity.eye_spacing, pose.unit * 0.185 * identity.eye_size


def _eyes(canvas: Canvas, identity: Identity, pose: _Pose, expression: str) -> None:
    spacing, radius = _eye_measures(identity, pose)
    openness = {"neutral": 1.0, "smiling": 0.8, "sad": 0.72, "surprised": 1.35}[expression]
    y = pose.eyes_y
    for side in SIDES:
        x = pose.features_x + side * spacing
        canvas.ellipse(x, y, radius * 1.25, radius * openness, (252, 252, 252))
        iris = radius * min(0.82, openness)
        canvas.circle(x, y, iris, EYE_COLOURS[identity.eye_colour])
        canvas.circle(x, y, radius * 0.3, (15, 15, 18))
        canvas.circle(x - radius * 0.28, y - radius * 0.3, radius * 0.2, (255, 255, 255))
        canvas.ellipse(x, y, radius * 1.25, radius * openness, INK, 0, (190, 350), pose.unit * 0.05)
        if identity.gender == "woman":
            for reach, lift in ((1.2, 0.35), (0.95, 0.75)):
                root = (x + side * radius * reach, y - radius * openness * lift)
                tip = (root[0] + side * radius * 0.45, root[1] - radius * 0.4)
                canvas.line([root, tip], INK, pose.unit * 0.055)


def _brows(canvas: Canvas, identity: Identity, pose: _Pose, expression: str) -> None:
    """Brows are high and round in surprise and rise towards the nose in sadness; drawn over the fringe."""
    spacing, radius = _eye_measures(identity, pose)
    lift = {"neutral": 1.55, "smiling": 1.65, "sad": 1.5, "surprised": 2.35}[expression]
    tilt = {"neutral": identity.brow_tilt, "smiling": identity.brow_tilt, "sad": 0.5, "surprised": 0.0}[expression]
    colour = INK if identity.hair_style == "bald" else darker(pose.hair, 0.7)
    length, y, width = radius * 1.25, pose.eyes_y - radius * lift, pose.unit * 0.085 * identity.brow_thickness
    for side in SIDES:
        x = pose.features_x + side * spacing
        across, down = length * math.cos(tilt) * side, length * math.sin(tilt)
        arch = radius * (0.55 if expression == "surprised" else 0.15)
        canvas.line([(x - across, y - down), (x, y - arch), (x + across, y + down)], colour, width)


def _nose(canvas: Canvas, identity: Identity, pose: _Pose) -> None:
    length, width = pose.unit * 0.27 * identity.nose_length, pose.unit * 0.12 * identity.nose_width
    x, y = pose.features_x + pose.turn * 0.3, pose.y + pose.unit * 0.06
    canvas.polygon([(x, y), (x + width, y + length), (x - width, y + length)], darker(pose.skin, 0.84))
    canvas.ellipse(x, y + length, width * 1.15, pose.unit * 0.07, darker(pose.skin, 0.76))


def _lips(identity: Identity) -> Colour:
    """Women's are red; men's are brownish, and pale where dark skin or a beard would swallow them."""
    if identity.gender == "woman":
        return (205, 35, 70)
    if identity.beard != "none" and identity.hair_colour == "pink":
        return (125, 30, 50)
    on_dark = identity.beard != "none" or identity.skin in ("brown", "dark")
    return (222, 120, 110) if on_dark else (140, 58, 55)


def _mouth(canvas: Canvas, identity: Identity, pose: _Pose, expression: str) -> None:
    unit, x, y = pose.unit, pose.features_x + pose.turn * 0.3, pose.y + pose.unit * 0.68
    width, lips = unit * 0.36 * identity.mouth_width, _lips(identity)
    if identity.beard != "none":
        canvas.ellipse(x, y - unit * 0.16, unit * 0.46, unit * 0.13, pose.hair)
        if identity.beard == "moustache":
            for side in SIDES:
                canvas.ellipse(x + side * unit * 0.36, y - unit * 0.1, unit * 0.17, unit * 0.12, pose.hair, side * 30)
    if expression == "smiling":
        canvas.ellipse(x, y - unit * 0.1, width * 1.3, unit * 0.33, (252, 252, 252), 0, (0, 180))
        canvas.ellipse(x, y - unit * 0.1, width * 1.3, unit * 0.33, lips, 0, (0, 180), unit * 0.09)
        canvas.line([(x - width * 1.3, y - unit * 0.1), (x + width * 1.3, y - unit * 0.1)], lips, unit * 0.06)
    elif expression == "sad":
        canvas.ellipse(x, y + unit * 0.24, width * 1.1, unit * 0.3, lips, 0, (190, 350), unit * 0.13)
    elif expression == "surprised":
        canvas.ellipse(x, y + unit * 0.08, width * 0.72, unit * 0.27, lips)
        canvas.ellipse(x, y + unit * 0.08, width * 0.46, unit * 0.18, (60, 18, 25))
    elif identity.gender == "woman":
        canvas.ellipse(x, y + unit * 0.01, width * 0.85, unit * 0.1, lips)
        canvas.line([(x - width * 0.8, y), (x + width * 0.8, y)], darker(lips, 0.6), unit * 0.035)
    else:
        canvas.line([(x - width, y), (x + width, y)], lips, unit * 0.1)


def _arc(pose: _Pose, width: float, height: float, lift: float, start: float, stop: float, count: int) -> list[Point]:
    """Points of an ellipse around the face; angles in half turns, so 1..2 is the upper half from left to right."""
    return [
        (
            pose.x + pose.half_width * width * math.cos(a),
            pose.y - pose.unit * lift + pose.half_height * height * math.sin(a),
        )
        for a in np.linspace(math.pi * start, math.pi * stop, count)
    ]


def _hair_before(canvas: Canvas, identity: Identity, pose: _Pose) -> None:
    x, y, unit, width = pose.x, pose.y, pose.unit, pose.half_width
    cap = _arc(pose, 1.07, 1.12, 0.02, 1.02, 1.98, 30)
    if identity.hair_style == "short":
        canvas.polygon(cap + _arc(pose, 0.9, 0.42, 0.36, 1.98, 1.02, 20), pose.hair)
    elif identity.hair_style == "bobbed":  # a straight fringe
        canvas.polygon([*cap, (x + width * 0.98, y - unit * 0.45), (x - width * 0.98, y - unit * 0.45)], pose.hair)
    elif identity.hair_style == "long":  # parted at one side
        parting = [(x + width * 0.95, y - unit * 0.15), (x + width * 0.1, y - unit * 0.85)]
        canvas.polygon([*cap, *parting, (x - width * 0.95, y - unit * 0.15)], pose.hair)
    elif identity.hair_style == "spiky":
        tips = 7
        spikes: list[Point] = []
        for j in range(2 * tips + 1):
            angle, reach = math.pi * (1.04 + 0.92 * j / (2 * tips)), 1.4 if j % 2 else 1.05
            across, down = width * reach * 0.95 * math.cos(angle), pose.half_height * reach * 0.98 * math.sin(angle)
            spikes.append((x + across, y + down))
        canvas.polygon(spikes + _arc(pose, 0.88, 0.4, 0.38, 1.98, 1.02, 20), pose.hair)
    elif identity.hair_style == "curly":
        for curl_x, curl_y in _arc(pose, 0.86, 0.84, 0.24, 1.08, 1.92, 8):
            canvas.circle(curl_x, curl_y, unit * 0.25, pose.hair)


def _hat(canvas: Canvas, pose: _Pose, colour: Colour) -> None:
    x, top, unit, width = pose.x, pose.top, pose.unit, pose.half_width
    canvas.ellipse(x, top + unit * 0.3, width * 1.38, unit * 0.16, darker(colour, 0.8))
    crown = [(x - width * 0.95, top + unit * 0.28), (x - width * 0.8, top - unit * 0.45)]
    canvas.polygon([*crown, (x + width * 0.8, top - unit * 0.45), (x + width * 0.95, top + unit * 0.28)], colour)


def _glasses(canvas: Canvas, identity: Identity, pose: _Pose) -> None:
    """Pale lenses through which the eyes are seen, and a bold dark frame."""
    spacing, _ = _eye_measures(identity, pose)
    y, unit, frame, width = pose.eyes_y, pose.unit, (22, 22, 30), pose.unit * 0.105
    spacing = max(spacing, unit * 0.43)
    through = canvas.pixels.copy()
    lenses: list[tuple[float, list[Point]]] = []
    for side in SIDES:
        x = pose.features_x + side * spacing
        corners = [(x - unit * 0.35, y - unit * 0.27), (x + unit * 0.35, y - unit * 0.27)]
        corners += [(x + unit * 0.35, y + unit * 0.27), (x - unit * 0.35, y + unit * 0.27)]
        lenses.append((x, corners))
        if identity.glasses == "round":
            canvas.circle(x, y, unit * 0.36, (225, 240, 250))
        else:
            canvas.polygon(corners, (225, 240, 250))
    canvas.pixels = cv2.addWeighted(through, 0.82, canvas.pixels, 0.18, 0)
    for x, corners in lenses:
        if identity.glasses == "round":
            canvas.circle(x, y, unit * 0.36, frame, width)
        else:
            canvas.line(corners, frame, width, closed=True)
    canvas.line(
        [(pose.features_x - spacing + unit * 0.34, y), (pose.features_x + spacing - unit * 0.34, y)], frame, width
    )
    for side in SIDES:
        hinge = pose.features_x + side * (spacing + unit * 0.35)
        canvas.line([(hinge, y), (pose.x + side * pose.half_width, y - unit * 0.06)], frame, width)
