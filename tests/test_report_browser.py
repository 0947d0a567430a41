"""The evidence page in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from nearcase.report.page import render_page

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
  const tile = document.querySelector(".tile");
  parent.document.documentElement.dataset.probe = JSON.stringify({
    inner: innerWidth, scroll: root.scrollWidth,
    natural: [...document.images].map(image => image.naturalWidth * image.naturalHeight),
    tile: getComputedStyle(tile).backgroundColor,
    columns: getComputedStyle(document.querySelector(".neighbours")).gridTemplateColumns.split(" ").length,
    square: [tile.clientWidth, tile.clientHeight],
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
    (folder / "frame.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{frame}")
    profile, address = f"--user-data-dir={folder / 'profile'}", (folder / "frame.html").as_uri()
    command = [str(BROWSER), *QUIET, profile, "--window-size=1400,1000", "--dump-dom", address]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, "the page did not finish loading"
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


@pytest.mark.parametrize(("width", "columns"), [(1280, 5), (390, 1)])
def test_no_sideways_scroll_and_every_picture_shows(tmp_path: Path, width: int, columns: int) -> None:
    long_search, table = samples.filled("W" * 200 + " " + "long words " * 30)
    searches = (*samples.searches(), long_search)
    page = render_page(searches, title="Evidence " + "W" * 120, generated_at="today", summary=table)
    seen = probe(page, tmp_path, width)
    assert seen["inner"] == width
    assert seen["scroll"] <= width
    assert len(seen["natural"]) == page.count("<img ")
    assert all(area > 0 for area in seen["natural"])
    assert seen["tile"] == "rgb(10, 12, 14)"  # the policy let the style sheet through, and tiles are dark
    assert seen["columns"] == columns
    assert abs(seen["square"][0] - seen["square"][1]) <= 1
