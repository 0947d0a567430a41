"""The slider of the decision page, clicked in a real browser: the point and the call change, the score does not."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from decisions import ASKED, CONTEXT, MASS, fit, hits
from test_report_browser import BROWSER, QUIET

from nearcase.decide.decision import decide
from nearcase.report.decision_page import render_decision
from nearcase.report.decision_view import stops
from nearcase.types import CaseFacts, DecisionResult, EncoderSummary, QueryImage

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium"),
]
ENCODER = EncoderSummary("lite0", "1", "ab", 1280, "stretch-1-224", False, "Not medical.", "CPU")
CLICK = """<script>
addEventListener("load", () => {
  const shown = () => [...document.querySelectorAll(".panel")]
    .filter(each => getComputedStyle(each).display !== "none");
  const marks = () => [...document.querySelectorAll("[class*=mark-]")]
    .filter(each => getComputedStyle(each).visibility === "visible").length;
  const seen = [];
  for (const label of document.querySelectorAll(".names label")) {
    label.click();
    seen.push({
      name: label.textContent,
      panels: shown().map(each => each.querySelector(".call").textContent),
      marks: marks(),
      score: document.querySelector(".figures").textContent,
    });
  }
  document.documentElement.dataset.probe = JSON.stringify(seen);
});
</script>"""


def clicked(page: str, folder: Path) -> list[dict[str, Any]]:
    """Clicks each point in turn and tells what is shown; the copy allows one script, which the page itself does not."""
    copy = page.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    file = folder / "page.html"
    file.write_text(copy.replace("</body>", CLICK + "</body>"), "utf-8")
    command = [str(BROWSER), *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, "the page did not finish loading"
    seen: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return seen


def test_a_click_changes_the_point_and_the_call_and_never_the_score(tmp_path: Path) -> None:
    fitted = fit()
    decision = decide(MASS, fitted, hits([0.9, 0.895, 0.89, 0.88], ["1", "0", "1", "0"]), ASKED, CONTEXT).decision
    assert decision.score is not None
    result = DecisionResult((decision,), QueryImage(CaseFacts(), thumbnail_jpeg=b""), ENCODER)
    page = render_decision(result, {}, title="Decision", generated_at="today")
    seen = clicked(page, tmp_path)
    assert [each["name"] for each in seen] == ["lax", "middle", "both", "strict"]
    expected = [f"{stop.call} at {stop.name}" for stop in stops(decision)]
    assert [each["panels"] for each in seen] == [[said] for said in expected]
    assert len({said.split()[0] for said in expected}) == 3  # the call does change
    assert len({each["score"] for each in seen}) == 1
    assert f"{decision.score:.3f}" in seen[0]["score"]
    assert {each["marks"] for each in seen} == {seen[0]["marks"]}
    assert seen[0]["marks"] > 0
