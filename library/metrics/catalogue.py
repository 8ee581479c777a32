"""What can be measured, what each metric needs, and the line that gets it. No network is imported here."""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co/"


@dataclass(frozen=True)
class Source:
    """Weights that people bring: a file, or a folder with config.json as on the Hugging Face Hub."""

    what: str
    """To be read before "are missing"."""
    url: str
    hub: tuple[str, ...] = ()
    """Repositories whose local copy will do."""
    file: str | None = None
    """The file's name in those repositories; None is the whole folder."""

    @property
    def is_folder(self) -> bool:
        return bool(self.hub) and self.file is None


def _folder(what: str, *hub: str) -> Source:
    return Source(what, HUB + hub[0], hub)


SOURCES: dict[str, Source] = {
    "inception": Source(
        "the Inception weights",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    "clip": _folder("the CLIP weights", "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"),
    "clip_336": _folder("the weights of CLIP L/14 at 336 px", "openai/clip-vit-large-patch14-336"),
    "dino": _folder("the DINO weights", "facebook/dino-vits16"),
    "dinov2": _folder("the DINOv2 weights", "facebook/dinov2-base"),
    "csd": Source(
        "the CSD weights",
        HUB + "tomg-group-umd/CSD-ViT-L/resolve/main/pytorch_model.bin",
        ("tomg-group-umd/CSD-ViT-L",),
        "pytorch_model.bin",
    ),
    "pickscore": _folder("the PickScore weights", "yuvalkirstain/PickScore_v1"),
    "image_reward": Source(
        "the ImageReward weights",
        HUB + "THUDM/ImageReward/resolve/main/ImageReward.pt",
        ("THUDM/ImageReward", "zai-org/ImageReward"),
        "ImageReward.pt",
    ),
    "bert_vocabulary": Source(
        "the words of BERT",
        HUB + "google-bert/bert-base-uncased/resolve/main/vocab.txt",
        ("google-bert/bert-base-uncased", "bert-base-uncased"),
        "vocab.txt",
    ),
    "alexnet": Source("the AlexNet weights", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    "lpips_heads": Source(
        "the heads of LPIPS",
        "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth",
    ),
    "face_detector": Source(
        "the weights of the face detector YuNet",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
    ),
    "face": Source(
        "the weights of the face network",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface/face_recognition_sface_2021dec.onnx",
    ),
}


@dataclass(frozen=True)
class Metric:
    """One figure. `compares` says what the pictures are held against: prompts, references, pairs (same names)."""

    name: str
    needs: tuple[str, ...]
    compares: str
    better: str
    """higher or lower"""
    of_sets: bool = False
    """One figure for the whole folder, none for a picture."""


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("clip_t", ("clip",), "prompts", "higher"),
        Metric("clip_i", ("clip",), "references", "higher"),
        Metric("dino", ("dino",), "references", "higher"),
        Metric("dinov2", ("dinov2",), "references", "higher"),
        Metric("style", ("csd",), "references", "higher"),
        Metric("pickscore", ("pickscore",), "prompts", "higher"),
        Metric("image_reward", ("image_reward", "bert_vocabulary"), "prompts", "higher"),
        Metric("identity", ("face_detector", "face"), "references", "higher"),
        Metric("kid", ("inception",), "references", "lower", of_sets=True),
        Metric("cmmd", ("clip_336",), "references", "lower", of_sets=True),
        Metric("fid", ("inception",), "references", "lower", of_sets=True),
        Metric("lpips", ("alexnet", "lpips_heads"), "pairs", "lower"),
        Metric("psnr", (), "pairs", "higher"),
        Metric("ssim", (), "pairs", "higher"),
    )
}

PAPER_TABLE: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fid_64", ("inception",), "references", "lower", of_sets=True),
        Metric("fid_192", ("inception",), "references", "lower", of_sets=True),
        Metric("clip_t_hessel", ("clip",), "prompts", "higher"),
        Metric("clip_folders", ("clip",), "references", "higher", of_sets=True),
        Metric("dino_folders", ("dino",), "references", "higher", of_sets=True),
    )
}
"""Figures of the kinds that papers print without saying how they were made; never comparable with theirs."""


def metrics_of(network: str) -> tuple[Metric, ...]:
    """What a feature network of one's own measures: NAME is the likeness to the references, and its two distances."""
    return (
        Metric(network, (network,), "references", "higher"),
        Metric(f"kid_{network}", (network,), "references", "lower", of_sets=True),
        Metric(f"fid_{network}", (network,), "references", "lower", of_sets=True),
    )
