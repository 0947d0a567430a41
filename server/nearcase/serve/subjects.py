"""Whose image a query is: by what its file states, by what the request gives, and by what the library knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearcase.retrieve.agreement import check_agreement
from nearcase.retrieve.annotations import Annotations, annotate
from nearcase.retrieve.cases import patient_key
from nearcase.retrieve.scope import Query
from nearcase.types import Case, CaseFacts

if TYPE_CHECKING:
    from nearcase.serve.engine import Engine
    from nearcase.types import Embedding

NOTHING = CaseFacts()


async def query_of(engine: Engine, stated: Case, given: CaseFacts, vector: Embedding, weight: float) -> Query:
    """Returns the query that a file is, with what was given of it where the file is silent.

    A file that states no patient, and that somebody added with one, is that patient's here too. The patient is known
    by every key that the id may have in the library: with and without the issuer, as it is and as a pseudonym.

    Args:
        engine: The running parts.
        stated: As the file states it.
        given: What the request says besides.
        vector: Its embedding.
        weight: How much it counts.

    Raises:
        InvalidInput: The file states otherwise.
    """
    check_agreement(stated.facts, given)
    annotations = Annotations(facts=given)
    case = annotate(engine.privacy.case(stated, annotations), engine.privacy.given(stated, annotations))
    keys = _keys(engine, stated.facts, given)
    if not case.facts.patient_id:
        known = await engine.library.known(case.content_sha256)
        keys |= {patient_key(each.facts.patient_id, each.facts.patient_id_issuer) for each in known}
    return Query(case, vector, weight, tuple(sorted(keys - {""})))


def _keys(engine: Engine, stated: CaseFacts, given: CaseFacts) -> set[str]:
    if not given.patient_id and not given.patient_id_issuer:
        return set()  # as it is with most files: what the case states is left out anyway
    whole = [(facts.patient_id, facts.patient_id_issuer) for facts in (stated, given)]
    mixed = (stated.patient_id or given.patient_id, stated.patient_id_issuer or given.patient_id_issuer)
    keys = {key for named in (*whole, mixed) if named[0] for key in engine.privacy.patient_keys(*named)}
    return keys - {patient_key(mixed[0], "")} if mixed[1] else keys  # the issuer is known: not those of all others
