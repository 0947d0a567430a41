"""The reference forward of MedImageInsight: the code in the MIT package medimageinsights, run unchanged.

The package asks for far more than its mathematics needs, so it is installed without its dependencies, and what it
imports of them has stand-ins here: drop path is the identity in eval mode, muP's readout is not used by this network.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

from nearcase_models.medimageinsight.shape import IMAGE_PX, Shape

PACKAGE = "MedImageInsights"
WHY = "the reference code is in a package: pip install --no-deps medimageinsights==0.1.1 einops"


def package_folder() -> Path:
    """Returns the installed package's folder without importing it; skips where it is absent."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("einops") is None:
        pytest.skip(WHY)
    return Path(spec.submodule_search_locations[0])


def reference_model(shape: Shape, weights: dict[str, Tensor]) -> Any:
    """Returns the reference model with these weights, strictly loaded, in eval mode."""
    with _stand_ins(package_folder()):
        unicl = _module(f"{PACKAGE}.Models.UniCLModel")
        unicl.build_tokenizer = lambda _: SimpleNamespace(vocab_size=shape.text.vocabulary)
        model = unicl.create_model(_configuration(shape))
    model.load_state_dict(weights, strict=True)
    return model.eval()


def reference_names() -> Callable[[dict[str, Tensor]], dict[str, str]]:
    """Returns the reference's translation of names: all of a file's -> the published ones."""
    with _stand_ins(package_folder()):
        unicl, davit = _module(f"{PACKAGE}.Models.UniCLModel"), _module(f"{PACKAGE}.ImageEncoder.davit_v1")

    def translate(weights: dict[str, Tensor]) -> dict[str, str]:
        tops = unicl.UniCLModel._convert_old_weights(None, {name: name for name in weights})
        inner = davit.DaViT._try_remap_keys(None, {new: None for new in tops if new.startswith("image_encoder.")})
        return {old: inner.get(new, new) for new, old in tops.items()}

    return translate


def _configuration(shape: Shape) -> dict[str, Any]:
    stages, text = shape.image.stages, shape.text
    return {
        "VERBOSE": False,
        "LANG_ENCODER": {
            "NAME": "transformer",
            "TOKENIZER": "clip",
            "LOAD_PRETRAINED": False,
            "CONTEXT_LENGTH": text.context,
            "WIDTH": text.width,
            "HEADS": text.heads,
            "LAYERS": text.layers,
            "AUTOGRESSIVE": False,
        },
        "UNICL_MODEL": {"DIM_PROJECTION": shape.dimension},
        "IMAGE_ENCODER": {
            "NAME": "davit_v1",
            "NUM_CLASSES": 0,
            "IMAGE_SIZE": [IMAGE_PX, IMAGE_PX],
            "LOAD_PRETRAINED": False,
            "SPEC": {
                "DROP_PATH_RATE": 0.2,
                "PATCH_SIZE": [stage.patch_px for stage in stages],
                "PATCH_STRIDE": [stage.stride_px for stage in stages],
                "PATCH_PADDING": [stage.padding_px for stage in stages],
                "PATCH_PRENORM": [stage.norm_first for stage in stages],
                "DIM_EMBED": [stage.width for stage in stages],
                "NUM_HEADS": [stage.heads for stage in stages],
                "NUM_GROUPS": [stage.heads for stage in stages],
                "DEPTHS": [stage.depth for stage in stages],
                "WINDOW_SIZE": shape.image.window_px,
                "ENABLE_CHECKPOINT": False,
            },
        },
    }


@contextmanager
def _stand_ins(folder: Path) -> Iterator[None]:
    """Puts stand-ins into sys.modules, and takes them and the reference out again."""
    before = set(sys.modules)
    for name, contents in _packages(folder).items():
        module = ModuleType(name)
        module.__dict__.update(contents)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in (PACKAGE, "timm", "mup", "huggingface_hub", "transformers"):
                del sys.modules[name]


class _Identity(nn.Identity):
    """Drop path in eval mode."""


def _packages(folder: Path) -> dict[str, dict[str, Any]]:
    parts = ("", "ImageEncoder", "LangEncoder", "Models")
    ours: dict[str, dict[str, Any]] = {
        ".".join((PACKAGE, part)).rstrip("."): {"__path__": [str(folder / part)]} for part in parts
    }
    ours[f"{PACKAGE}.Utils"] = {"is_main_process": lambda: False, "register_norm_module": lambda kind: kind}
    stand_ins: dict[str, dict[str, Any]] = {
        "timm": {},
        "timm.layers": {"DropPath": _Identity, "trunc_normal_": nn.init.trunc_normal_},
        "mup": {"MuReadout": nn.Linear, "set_base_shapes": None, "__path__": []},
        "mup.init": {},
        "transformers": {"CLIPTokenizer": None, "CLIPTokenizerFast": None, "AutoTokenizer": None},
        "huggingface_hub": {"hf_hub_download": None},
    }
    return stand_ins | ours


def _module(name: str) -> Any:
    """Imports a module of the reference, with what its package's own __init__ would have brought."""
    if name.endswith("UniCLModel"):
        image, text = sys.modules[f"{PACKAGE}.ImageEncoder"], sys.modules[f"{PACKAGE}.LangEncoder"]
        for part in ("davit_v1", "build"):
            importlib.import_module(f"{PACKAGE}.ImageEncoder.{part}")
        importlib.import_module(f"{PACKAGE}.LangEncoder.transformer")
        builds = importlib.import_module(f"{PACKAGE}.LangEncoder.build")
        image.__dict__["build_image_encoder"] = sys.modules[f"{PACKAGE}.ImageEncoder.build"].build_image_encoder
        text.__dict__.update(build_lang_encoder=builds.build_lang_encoder, build_tokenizer=builds.build_tokenizer)
    return importlib.import_module(name)
