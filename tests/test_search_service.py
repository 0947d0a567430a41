"""Search over gRPC with every kind of example and order, on a real server with made vectors and real files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_library import CARD, fill
from made_series import Made, scaled
from serving import scan, serving

from nearcase.client import AddItem, Client, Example, Order
from nearcase.errors import InvalidInput, NotAllowed, NotFound, Unsupported
from nearcase.retrieve.cases import case_id_of
from nearcase.types import Case, CaseFacts, SearchResult

pytestmark = pytest.mark.system
SERIES, EACH = 12, 8
METHODS = ("frequency", "max", "sum", "pooled")


def made() -> list[Made]:
    """Series of one patient each, the first two of one; the last image of each is flagged."""
    rng = np.random.default_rng(0)
    found = []
    for series in range(SERIES):
        center = rng.normal(size=CARD.dimension)
        for image in range(EACH):
            patient = max(series, 1)
            facts = CaseFacts(
                patient_id=f"P{patient}",
                study_uid=f"1.{patient}",
                series_uid=f"1.{patient}.{series}",
                instance_uid=f"1.{patient}.{series}.{image}",
                modality="CT",
            )
            case = Case(case_id_of(facts, "", 1), facts, flags=("excluded",) if image == EACH - 1 else ())
            found.append(Made(case, scaled(center + 0.4 * rng.normal(size=CARD.dimension))))
    return found


IMAGES = made()
SHOWN = [each for each in IMAGES if not each.case.flags]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("searching")
    fill(folder, [(each.case, each.vector) for each in IMAGES])
    with serving(folder) as server, Client(server.address) as found:
        yield found


def series_of(result: SearchResult) -> list[str]:
    return [hit.case.facts.series_uid for hit in result.hits]


@pytest.mark.parametrize("method", ["", *METHODS])
def test_a_stored_series_finds_series_and_itself_first_where_it_may(client: Client, method: str) -> None:
    uid = IMAGES[5 * EACH].case.facts.series_uid
    own = client.search(series_uid=uid, k=20, own_patient=True, order=Order(series_method=method))
    assert series_of(own)[0] == uid
    assert len(set(series_of(own))) == len(own.hits) == SERIES
    assert own.candidate_count == len(SHOWN)
    assert own.query_images[0].image_count == EACH - 1
    assert own.query_images[0].facts.series_uid == uid
    assert own.query_images[0].facts.instance_uid == ""
    assert (own.hits[0].score is not None) == (method in ("frequency", "sum"))
    assert all(hit.matched_instance_uid == hit.case.facts.instance_uid for hit in own.hits)
    assert own.hits[0].matched_count == EACH - 1
    others = client.search(series_uid=uid, k=20, order=Order(series_method=method))
    assert uid not in series_of(others)
    assert len(others.hits) == SERIES - 1


def test_a_study_finds_studies_and_a_patient_groups_them(client: Client) -> None:
    own = client.search(study_uid="1.1", k=20, own_patient=True)
    assert own.query_images[0].image_count == 2 * (EACH - 1)
    assert [hit.case.facts.study_uid for hit in own.hits[:1]] == ["1.1"]
    assert len(own.hits) == SERIES - 1
    patients = client.search(study_uid="1.1", k=20, order=Order(group_by="patient"))
    assert len(patients.hits) == SERIES - 2
    images = client.search(series_uid="1.1.1", k=100, order=Order(group_by="instance"))
    assert len(images.hits) == images.candidate_count == (SERIES - 2) * (EACH - 1)


def test_a_flagged_case_is_found_nowhere_and_asks_nothing(client: Client) -> None:
    flagged = next(each for each in IMAGES if each.case.flags)
    shown = {each.case.case_id for each in SHOWN}
    found = client.search(examples=[vector_of(client, flagged)], k=1000, own_patient=True)
    assert {hit.case.case_id for hit in found.hits} == shown
    with pytest.raises(NotAllowed) as refused:
        client.search(case_id=flagged.case.case_id)
    assert refused.value.reason == "CASE_FLAGGED"
    with pytest.raises(NotFound):
        client.search(series_uid="1.2.3.4.5")


def vector_of(client: Client, each: Made, factor: float = 3.0) -> Example:
    """As a caller kept it, not quite of unit length."""
    values = tuple(float(value) * factor for value in each.vector)
    return Example(vector=values, encoder_sha256=client.encoder().sha256, facts=each.case.facts)


def test_a_kept_embedding_finds_what_the_stored_case_finds(client: Client) -> None:
    each = SHOWN[20]
    by_case = client.search(case_id=each.case.case_id, k=10)
    by_vector = client.search(examples=[vector_of(client, each)], k=10)
    assert [hit.case.case_id for hit in by_case.hits] == [hit.case.case_id for hit in by_vector.hits]
    assert by_vector.candidate_count == by_case.candidate_count  # its own patient is left out by the facts
    bare = replace(vector_of(client, each), facts=CaseFacts())
    assert client.search(examples=[bare], k=1).hits[0].case.case_id == each.case.case_id


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"encoder_sha256": "0" * 64}, "another encoder"),
        ({"vector": (1.0, 2.0)}, "shape"),
        ({"vector": (float("nan"),) * CARD.dimension}, "finite"),
        ({"vector": (0.0,) * CARD.dimension}, "direction"),
    ],
)
def test_an_unfit_embedding_is_refused(client: Client, change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        client.search(examples=[replace(vector_of(client, SHOWN[0]), **change)])  # type: ignore[arg-type]


def test_diversity_and_near_duplicates(client: Client) -> None:
    each = SHOWN[0]
    plain = client.search(case_id=each.case.case_id, k=6)
    diverse = client.search(case_id=each.case.case_id, k=6, order=Order(diversity=0.8))
    assert diverse.hits[0] == plain.hits[0]
    assert len(set(series_of(diverse))) >= len(set(series_of(plain)))
    least = plain.hits[2].similarity
    rest = client.search(case_id=each.case.case_id, k=6, order=Order(near_duplicates=least))
    assert [hit.case.case_id for hit in rest.hits[:3]] == [hit.case.case_id for hit in plain.hits[3:]]
    assert rest.candidate_count == plain.candidate_count - 3


def test_unlike_examples_are_pooled_with_series_and_never_vote(client: Client) -> None:
    unlike = replace(vector_of(client, SHOWN[-1]), weight=-1.0)
    uid = SHOWN[-1].case.facts.series_uid
    found = client.search(series_uid="1.5.5", examples=[replace(unlike, facts=CaseFacts())], k=20)
    assert series_of(found)[-1] == uid
    with pytest.raises(InvalidInput, match="vote alike"):
        client.search(series_uid="1.5.5", examples=[unlike], order=Order(series_method="sum"))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order(diversity=0.5, series_method="frequency"), "order by similarity"),
        (Order(diversity=1.0), "below 1"),
        (Order(near_duplicates=-0.1), "near_duplicate_similarity"),
        (Order(pooling="median"), "pooling belongs"),
        (Order(group_by="planet"), "instance, series, study, patient"),
    ],
)
def test_orders_that_can_not_be_kept_are_refused(client: Client, order: Order, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        client.search(case_id=SHOWN[0].case.case_id, order=order)


def test_words_need_a_text_tower(client: Client) -> None:
    with pytest.raises(Unsupported, match="no text tower") as refused:
        client.search(examples=[Example(text="pneumonia")])
    assert refused.value.reason == "UNIMPLEMENTED"


def test_an_example_names_one_thing() -> None:
    with pytest.raises(InvalidInput, match="one source"):
        Example(case_id="a", series_uid="b").message()
    with pytest.raises(InvalidInput, match="one source"):
        Example().message()


def test_files_of_one_series_find_the_series_that_was_added(tmp_path: Path) -> None:
    """Real files through intake and encoder; the query's own patient is left out by each of its files."""
    files = {
        patient: [
            scan(10 * patient + number, f"P{patient}", SOPInstanceUID=f"1.2.{patient}.{number}") for number in range(4)
        ]
        for patient in range(5)
    }
    with serving(tmp_path) as server, Client(server.address) as client:
        items = [
            AddItem(f"{patient}-{number}", file)
            for patient, some in files.items()
            for number, file in enumerate(some)
            if patient
        ]
        assert not [result.error for result in client.add(items) if result.error]
        pooled = Order(group_by="series", series_method="pooled")
        own = client.search(files[1], k=5, own_patient=True, order=pooled)
        assert own.hits[0].similarity == pytest.approx(1.0, abs=1e-5)
        assert own.hits[0].case.facts.patient_id == "P1"
        assert own.hits[0].matched_count == 4
        assert len(own.query_images) == 4
        others = client.search(files[1], k=5, order=pooled)
        assert {hit.case.facts.patient_id for hit in others.hits} == {"P2", "P3", "P4"}
        stranger = client.search(files[0], k=5, order=pooled, thumbnails=True)
        assert len(stranger.hits) == 4
        assert all(hit.case.thumbnail_jpeg for hit in stranger.hits)
        assert stranger.timings
        assert stranger.timings.encode_ms > 0
