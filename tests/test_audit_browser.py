"""The report page in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from audit_tables import Command, cohort, write

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement;
  const box = element => element.getBoundingClientRect();
  const marks = [...document.querySelectorAll("circle.mark")].map(mark => {
    const m = box(mark), s = box(mark.ownerSVGElement);
    return [m.width, m.left + m.width / 2 - s.left, s.right - m.left - m.width / 2];
  });
  parent.document.documentElement.dataset.probe = JSON.stringify({
    inner: innerWidth, scroll: root.scrollWidth, marks,
    plots: [...document.querySelectorAll("svg.plot")].map(plot => box(plot).width),
    lines: getComputedStyle(document.querySelector("svg.plot polyline.line")).stroke,
    small: [...document.querySelectorAll("svg.plot text")].map(text => box(text).height),
  });
});
</script>"""

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium"),
]


def probe(page: str, folder: Path, width: int) -> dict[str, Any]:
    """Lays the page out and measures it; the copy allows one script, and no style that the page itself does not."""
    copy = page.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    copy = copy.replace("</body>", PROBE + "</body>")
    # A frame, because a headless window is never narrower than 500 pixels.
    frame = f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{html.escape(copy)}"></iframe>'
    (folder / "frame.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{frame}", "utf-8")
    profile, address = f"--user-data-dir={folder / 'profile'}", (folder / "frame.html").as_uri()
    command = [str(BROWSER), *QUIET, profile, "--window-size=1400,1000", "--dump-dom", address]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, "the page did not finish loading"
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


@pytest.mark.parametrize("width", [1280, 390])
def test_no_sideways_scroll_and_every_figure_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    columns = cohort(600)
    columns["site"] = ["W" * 120 if row % 2 else "a long name of a site " * 8 for row in range(600)]
    arguments = ("--by", "sex", "--by", "age", "--by", "site", "--title", "Audit " + "W" * 120, "--op", "threshold=0.5")
    found = Command(tmp_path, capsys).run(write(tmp_path / "t.csv", columns), *arguments)
    page = (found.folder / "report.html").read_text("utf-8")
    seen = probe(page, tmp_path, width)
    assert seen["inner"] == width
    assert seen["scroll"] <= width
    assert len(seen["plots"]) == 4
    assert min(seen["plots"]) > 200
    assert seen["lines"] not in ("", "none")  # the policy let the style sheet through
    assert min(seen["small"]) >= 8
    assert len(seen["marks"]) > 15
    assert all(size > 0 and left >= -0.5 and right >= -0.5 for size, left, right in seen["marks"])
