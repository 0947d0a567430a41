"""Number findings: what is no number takes no place among the K nearest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from made_library import declare, fill, made_cases
from serving import serving_here

from nearcase.retrieve.corrections import Correction
from nearcase.v1 import decision_pb2, decision_pb2_grpc

TEXT = 'name = "bone-age"\nversion = "1"\nlabel = "bone_age"\nanswer = "number"\nunit = "months"\n[scorer]\nk = 3\n'


@pytest.mark.system
async def test_the_nearest_numbers_are_weighed_though_nearer_cases_have_none(tmp_path: Path) -> None:
    (query, vector), *_ = cases = made_cases(patients=15)
    others = [(case, other) for case, other in cases if case.facts.patient_id != query.facts.patient_id]
    others.sort(key=lambda pair: -float(np.dot(pair[1], vector)))
    silent = {case.case_id for case, _ in others[:3]}
    told = [
        (replace(case, labels={"bone_age": "not assessed"}) if case.case_id in silent else case, each)
        for case, each in cases
    ]
    await asyncio.to_thread(fill, tmp_path, told)
    declare(tmp_path / "findings", TEXT, None)
    async with (
        serving_here(tmp_path, findings=tmp_path / "findings") as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        stub = decision_pb2_grpc.DecisionServiceStub(channel)

        async def weighed() -> list[str]:
            options = decision_pb2.DecideOptions(finding="bone-age")
            answer = await stub.Decide(decision_pb2.DecideRequest(case_id=query.case_id, options=options))
            (decision,) = answer.decisions
            assert decision.abstain_reason == "MEASUREMENT_ONLY"
            assert decision.HasField("measurement")
            return [piece.hit.case.case_id for piece in decision.evidence]

        assert await weighed() == [case.case_id for case, _ in others[3:6]]
        library = app.engine.tenants.here().library
        await library.update(others[3][0].case_id, Correction(labels={"bone_age": "unreadable"}, changed_by="a reader"))
        assert await weighed() == [case.case_id for case, _ in others[4:7]]
