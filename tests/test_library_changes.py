"""What a fit notices of its library afterwards: relabelled, replaced, added and removed cases, each counted."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import grpc
import numpy as np
import pytest
from auth_files import HandClock
from decisions import ASKED
from made_library import CARD, POINT, add, declare, fill, finding_text, fitted_on, made_cases, opened, reference_of
from serving import serving_here

from nearcase.decide.changes import Change, compare
from nearcase.decide.decision import Context, Decided, decide
from nearcase.decide.findings import read_finding
from nearcase.decide.fitted import Fitted, Library
from nearcase.decide.record import read_record, redacted, replay, write_record
from nearcase.index.filters import Equals, In
from nearcase.index.opening import open_index
from nearcase.retrieve.corrections import Correction
from nearcase.retrieve.library import Library as StoredLibrary
from nearcase.retrieve.search import Found, Query, Scope, search
from nearcase.serve import deciding
from nearcase.serve.findings import Findings, evidence_of
from nearcase.transfers import StoredCase
from nearcase.types import Call, Decision
from nearcase.v1 import decision_pb2, decision_pb2_grpc

CASES = made_cases(patients=80)  # 160 cases, 64 of them with a mass
POSITIVE = next(case for case, _ in CASES if case.labels["mass"] == "1")
NEGATIVE = next(case for case, _ in CASES if case.labels["mass"] == "0")


def text_of(allowed: float) -> str:
    return finding_text("mass", f"[abstain]\nlibrary_change = {allowed!r}\n").replace(
        'version = "1"\n', f'version = "1"\n{POINT}'
    )


@pytest.fixture
def fitted(tmp_path: Path) -> Fitted:
    fill(tmp_path, CASES)
    text = text_of(1.0)
    return fitted_on(reference_of(tmp_path, text), text, familiarity=None)


TURNED = [StoredCase(case, vector) for (case, _), (_, vector) in zip(CASES, CASES[::-1], strict=True)]


def findings_of(library: StoredLibrary, fitted: Fitted, text: str) -> Findings:
    return Findings({"mass": (read_finding(text, "mass.toml"), fitted)}, library)


async def decided(library: StoredLibrary, fitted: Fitted, allowed: float) -> Decision:
    return (await kept_of(library, findings_of(library, fitted, text_of(allowed)))).decision


async def kept_of(library: StoredLibrary, findings: Findings) -> Decided:
    """As the server does, with a query of no patient; its record alone gives the same decision."""
    finding, fitted = await findings.one("mass")
    case, vector = CASES[0]
    scope = Scope(k=25, where=evidence_of(finding))
    query = Query(dataclasses.replace(case, facts=dataclasses.replace(case.facts, patient_id="", modality="")), vector)
    found = await search(library._index, [query], scope)
    context = Context(
        encoder=CARD.identity,
        library=Library(await library.snapshot(), await findings.labelled_count(finding)),
        labelled_count=found.candidate_count,
        secret=bytes(32),
        kept=await findings.kept(finding, fitted),
    )
    made = decide(finding, fitted, found.hits, dataclasses.replace(ASKED, vector=vector), context)
    again = replay(read_record(write_record(made.record)))
    assert redacted(again) == redacted(made.decision)
    return made


async def relabel(library: StoredLibrary, value_of: dict[str, str]) -> None:
    for case_id, value in value_of.items():
        await library.update(case_id, Correction(labels={"mass": value}, changed_by="a reader"))


async def noticed(library: StoredLibrary, fitted: Fitted, share: float) -> str:
    """Asserts that this share of the fit's 160 cases changed, no more and no less, and returns the sentence."""
    below, above = await decided(library, fitted, share - 1e-6), await decided(library, fitted, share + 1e-6)
    assert (below.call, below.abstain_reason) == (Call.ABSTAIN, "LIBRARY_CHANGED")
    assert above.call is not Call.ABSTAIN
    return below.explanation


async def test_an_untouched_library_is_the_fitted_one(tmp_path: Path, fitted: Fitted) -> None:
    library = await opened(tmp_path)
    assert fitted.library.values == (("0", 96), ("1", 64))
    assert (await decided(library, fitted, 0.0)).call is not Call.ABSTAIN
    await library.close()


async def test_two_labels_that_change_places_are_two_cases_gone_and_two_that_came(
    tmp_path: Path, fitted: Fitted
) -> None:
    library = await opened(tmp_path)
    await relabel(library, {POSITIVE.case_id: "0", NEGATIVE.case_id: "1"})
    told = await noticed(library, fitted, 4 / 160)
    assert "of 160 labelled cases 2 are gone or changed, and 2 came or changed" in told
    assert (await decided(library, fitted, 0.0)).abstain_reason == "LIBRARY_CHANGED"
    await library.close()


async def test_they_are_noticed_where_the_clock_was_set_back(tmp_path: Path) -> None:
    await asyncio.to_thread(fill, tmp_path, CASES)
    late = await at_time(tmp_path, 2e9)
    await relabel(late, {CASES[2][0].case_id: "2"})
    await relabel(late, {CASES[2][0].case_id: CASES[2][0].labels["mass"]})
    await late.close()
    text = text_of(1.0)
    fitted = await asyncio.to_thread(lambda: fitted_on(reference_of(tmp_path, text), text, familiarity=None))
    assert fitted.library.changed_at_s >= 2e9
    library = await at_time(tmp_path, 1e9)
    await relabel(library, {POSITIVE.case_id: "0", NEGATIVE.case_id: "1"})
    assert "2 are gone or changed" in await noticed(library, fitted, 4 / 160)
    await library.close()


async def at_time(data: Path, now_s: float) -> StoredLibrary:
    index = await open_index(data / "library", dimension=CARD.dimension, encoder_identity=CARD.identity)
    library = StoredLibrary(index, HandClock(wall_s=now_s))
    library.start()
    return library


async def test_all_labels_that_change_places_are_beyond_every_allowance(tmp_path: Path, fitted: Fitted) -> None:
    library = await opened(tmp_path)
    await relabel(library, {case.case_id: "10"[int(case.labels["mass"])] for case, _ in CASES})
    decision = await decided(library, fitted, 1.0)
    assert decision.abstain_reason == "LIBRARY_CHANGED"
    assert "160 are gone or changed, and 160 came or changed" in decision.explanation
    await library.close()


async def test_embeddings_that_change_places_are_noticed_and_told(tmp_path: Path, fitted: Fitted) -> None:
    """Every case is there, with its label and under its id, so that the library has the same name."""
    library = await opened(tmp_path)
    findings = {allowed: findings_of(library, fitted, text_of(allowed)) for allowed in (0.0, 1.0)}
    before = {allowed: await kept_of(library, asked) for allowed, asked in findings.items()}
    name = await library.snapshot()
    assert {outcome.replaced for outcome in await library.put(TURNED, lambda case: False)} == {1}
    assert await library.snapshot() == name
    for allowed, asked in findings.items():
        after = await kept_of(library, asked)
        assert before[allowed].decision.call is not Call.ABSTAIN
        assert after.decision.abstain_reason == "LIBRARY_CHANGED"
        assert "of 160 labelled cases 160 are gone or changed, and 160 came or changed" in after.decision.explanation
        cause = Change("labelled cases not written since the fit", "0: 96, 1: 64", "0: 0, 1: 0")
        assert compare(before[allowed].record, after.record)[0] == cause
    await library.close()


async def test_what_can_not_be_evidence_changes_nothing(tmp_path: Path) -> None:
    """Outside the scope, in it without the finding's label, and flagged."""
    await asyncio.to_thread(fill, tmp_path, CASES)
    text = text_of(0.0) + '[scope]\nmodality = ["CT"]\n'
    fitted = fitted_on(await asyncio.to_thread(reference_of, tmp_path, text), text, familiarity=None)
    library = await opened(tmp_path)
    findings = findings_of(library, fitted, text)
    before = await kept_of(library, findings)
    assert before.decision.call is not Call.ABSTAIN
    (outside, vector), _, (inside, _), *_ = made_cases(seed=9)
    assert (outside.facts.modality, inside.facts.modality) == ("MR", "CT")
    await add(library, outside, vector)
    await add(library, dataclasses.replace(inside, labels={"bone_age": "100"}), vector)
    await library.update(inside.case_id, Correction(set_flags=("excluded",)))
    await library.update(outside.case_id, Correction(labels={"mass": "0"}))
    after = await kept_of(library, findings)
    assert after.record.basis.library.snapshot != before.record.basis.library.snapshot
    assert redacted(after.decision) == redacted(before.decision)
    await add(library, *made_cases(seed=9)[4])
    assert (await kept_of(library, findings)).decision.abstain_reason == "LIBRARY_CHANGED"
    await library.close()


async def test_a_fit_on_a_cohort_is_never_of_the_library(tmp_path: Path, fitted: Fitted) -> None:
    library = await opened(tmp_path)
    of_cohort = dataclasses.replace(fitted.library, snapshot=f"cohort:{fitted.library.snapshot}")
    decision = await decided(library, dataclasses.replace(fitted, library=of_cohort), 1.0)
    assert decision.abstain_reason == "LIBRARY_CHANGED"
    await library.close()


async def test_cases_replaced_one_for_one_are_noticed(tmp_path: Path, fitted: Fitted) -> None:
    library = await opened(tmp_path)
    gone = [case.case_id for case, _ in CASES if case.facts.patient_id in ("P0", "P3")]
    new = [(case, vector) for case, vector in made_cases(seed=9) if case.facts.patient_id in ("P100", "P103")]
    await library.erase(In("case_id", tuple(gone)), _ignore)
    for case, vector in new:
        await add(library, case, vector)
    assert await library.count() == len(CASES)
    assert "4 are gone or changed, and 4 came" in await noticed(library, fitted, 8 / 160)
    await library.close()


async def test_additions_removals_and_flags_count_once(tmp_path: Path, fitted: Fitted) -> None:
    library = await opened(tmp_path)
    for case, vector in made_cases(seed=9)[:4]:
        await add(library, case, vector)
    assert "0 are gone or changed, and 4 came" in await noticed(library, fitted, 4 / 160)
    await library.update(POSITIVE.case_id, Correction(set_flags=("excluded",)))
    assert "1 are gone or changed, and 4 came" in await noticed(library, fitted, 5 / 160)
    await library.update(POSITIVE.case_id, Correction(clear_flags=("excluded",)))
    assert "1 are gone or changed, and 5 came" in await noticed(library, fitted, 6 / 160)
    await library.update(NEGATIVE.case_id, Correction(labels={"mass": ""}))
    assert "2 are gone or changed, and 5 came" in await noticed(library, fitted, 7 / 160)
    await library.close()


async def test_a_fit_on_a_changed_library_knows_its_last_change(tmp_path: Path, fitted: Fitted) -> None:
    library = await opened(tmp_path)
    await relabel(library, {POSITIVE.case_id: "0"})
    await library.close()
    text = text_of(1.0)
    reference = await asyncio.to_thread(reference_of, tmp_path, text)
    again = fitted_on(reference, text, familiarity=None)
    assert again.library.changed_at_s > 1e9 > fitted.library.changed_at_s == 0.0
    library = await opened(tmp_path)
    assert (await decided(library, again, 0.0)).call is not Call.ABSTAIN
    await relabel(library, {NEGATIVE.case_id: "1"})
    await noticed(library, again, 2 / 160)
    await library.close()


async def test_another_library_of_as_many_cases_is_noticed(tmp_path: Path, fitted: Fitted) -> None:
    others = [
        (dataclasses.replace(case, labels={"mass": str(int(at % 2))}), vector)
        for at, (case, vector) in enumerate(made_cases(seed=5, patients=80))
    ]
    await asyncio.to_thread(fill, tmp_path / "other", others)
    library = await opened(tmp_path / "other")
    assert "16 are gone or changed, and 16 came" in await noticed(library, fitted, 32 / 160)
    await library.close()


async def _ignore(cases: object) -> None:
    return None


@pytest.mark.system
async def test_a_record_never_names_a_library_that_was_not_searched(
    tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library grows in every search, however often it is repeated."""
    declare(tmp_path / "findings", text_of(1.0), fitted)
    strict = text_of(0.0).replace('name = "mass"', 'name = "strict"').replace("mass.json", "strict.json")
    declare(tmp_path / "findings", strict, fitted)
    extra = iter(made_cases(seed=9))
    async with (
        serving_here(tmp_path, findings=tmp_path / "findings") as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        library = app.engine.tenants.here().library
        stub = decision_pb2_grpc.DecisionServiceStub(channel)

        async def growing(*asked: object) -> Found:
            found = await search(*asked)  # type: ignore[arg-type]
            await add(library, *next(extra))
            return found

        async def ask(finding: str = "mass") -> tuple[str, str]:
            options = decision_pb2.DecideOptions(finding=finding)
            answer = await stub.Decide(decision_pb2.DecideRequest(case_id=POSITIVE.case_id, options=options))
            kept = await stub.GetRecord(decision_pb2.GetRecordRequest(record_id=answer.decisions[0].record_id))
            return read_record(kept.record).basis.library.snapshot, answer.decisions[0].abstain_reason

        assert await ask() == await ask("strict") == (fitted.library.snapshot, "")
        unlabelled, vector = made_cases(seed=11)[2]
        await add(library, dataclasses.replace(unlabelled, labels={}), vector)
        assert await ask("strict") == (await library.snapshot(), "")  # what can not be evidence changes nothing
        monkeypatch.setattr(deciding, "search", growing)
        assert await ask() == ("", "")  # three came, which is allowed; the state that was searched has no name
        monkeypatch.undo()
        assert await ask() == (await library.snapshot(), "")
        assert await library.count(Equals("labels", "mass=1")) > 64
        assert np.isclose(await library.count(), 164)
        assert (await ask("strict"))[1] == "LIBRARY_CHANGED"
        await library.put(TURNED, lambda case: False)
        assert (await ask())[1] == "LIBRARY_CHANGED"
