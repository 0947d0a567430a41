"""What a terminal is shown of a record, in which anybody may have written anything: it is sealed by its own hash."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from decisions import ASKED, CONTEXT, MASS, fit, hits

from nearcase.cli.app import run
from nearcase.decide.decision import decide
from nearcase.decide.record import answer_of, write_record
from nearcase.decide.verdict import verdict

SAID = "\x1b]0;PWNED\x07\x1b[2J[red]\nSecond line\x9b31m\u202e\u2028\r"
SHOWN = "\\x1b]0;PWNED\\x07\\x1b[2J[red]\\nSecond line\\x9b31m\\u202e\\u2028\\r"


@pytest.mark.parametrize("refusal", ["", SAID])
def test_what_a_record_says_moves_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: str) -> None:
    """Window titles, cleared screens, other colours, lines of its own and text backwards are shown as escapes."""
    record = decide(MASS, fit(MASS), hits([0.9, 0.8], ["1", "0"]), ASKED, CONTEXT).record
    finding = replace(MASS, name=SAID, display_name=SAID, label=SAID, positive_values=(), negative_values=())
    priors = tuple(replace(prior, value=SAID) for prior in record.basis.priors)
    basis = replace(record.basis, finding=finding, priors=priors, selected=None, fit=None, refusal=refusal)
    file = tmp_path / "record.json"
    file.write_bytes(write_record(replace(record, basis=basis, answer=answer_of(verdict(basis)))))
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            run(["replay", str(file), *more])
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        assert not [each for each in out if each != "\n" and not each.isprintable()]
        if more:
            assert json.loads(out)["decision"]["finding"] == SAID
        else:
            assert out.replace("\n", "").count(SHOWN) >= 2
