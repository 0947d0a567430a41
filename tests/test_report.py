"""The evidence page as text: nothing left out, nothing let in, nothing made up."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import report_samples as samples

from nearcase.errors import InvalidInput
from nearcase.report import page, words
from nearcase.report.page import PageSearch, Table, render_page
from nearcase.types import Call, CaseFacts, Decision, SearchResult

HOSTILE = "</style></script><script>alert('1')</script><img src=\"//x\" onerror='y'>&amp;{{ 7*7 }}"
VOID = {"meta", "img"}


class Outline(HTMLParser):
    """Elements with their attributes, and the text outside the style sheet; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += "" if self._open and self._open[-1] == "style" else data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def render(searches: tuple[PageSearch, ...], summary: Table | None = None, title: str = "Evidence") -> str:
    return render_page(searches, title=title, generated_at="23 November 2026", summary=summary)


def test_hostile_text_in_any_field_stays_text() -> None:
    search, table = samples.filled(HOSTILE)
    text = render((search, search), table, HOSTILE)
    outline = Outline(text)
    assert not outline.named("script")
    assert not {name for _, attributes in outline.elements for name in attributes if name.startswith("on")}
    calm_search, calm_table = samples.filled("calm")
    calm = Outline(render((calm_search, calm_search), calm_table, "calm"))
    assert [tag for tag, _ in outline.elements] == [tag for tag, _ in calm.elements]
    # Every field as it is, braces unread; only the encoder's hash is cut short, in banner and footer.
    assert outline.words.count(HOSTILE) == calm.words.count("calm") - 2


def test_nothing_is_fetched_and_nothing_runs() -> None:
    outline = Outline(text := render(samples.searches()))
    for name in ("src", "href", "srcset", "data", "action", "style"):
        for value in (attributes[name] for _, attributes in outline.elements if name in attributes):
            assert value.startswith(("data:image/jpeg;base64,", "#query-"))
    assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe", text)


def test_the_policy_names_this_style_sheet_and_allows_nothing_else() -> None:
    text = render(samples.searches())
    (policy,) = [m["content"] for m in Outline(text).named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_every_hit_and_every_picture_is_there() -> None:
    searches = samples.searches()
    outline = Outline(render(searches))
    hits = [hit for search in searches for hit in search.result.hits]
    shown = {image["src"] for image in outline.named("img")}
    for hit in hits:
        if hit.case.thumbnail_jpeg:
            assert "data:image/jpeg;base64," + base64.b64encode(hit.case.thumbnail_jpeg).decode() in shown
        assert words.similarity(hit.similarity) in outline.words
    assert len(outline.named("img")) == 2 + 8  # a query and four of five neighbours, twice
    assert len(outline.named("figure")) == 2 + 10
    assert outline.words.count("No picture returned") == 2
    assert all(image["alt"] for image in outline.named("img"))


def test_what_the_encoder_is_stands_in_banner_and_footer() -> None:
    body = render(samples.searches()).split("<body>")[1]
    header, footer = body.split("</header>")[0], body.split("<footer>")[1]
    for part in (header, footer):
        assert samples.STATEMENT in part
        assert "Not a medical encoder" in part
        for fact in ("efficientnet-lite0", "5c31f48c4eed<", "stretch 1"):
            assert fact in part


def test_a_card_that_is_silent_does_not_make_the_encoder_medical() -> None:
    (search, _) = samples.searches()
    silent = replace(search, result=replace(search.result, encoder=samples.encoder(statement="")))
    assert "Not a medical encoder" in render((silent,))
    medical = replace(search, result=replace(search.result, encoder=samples.encoder("For chest CT.", is_medical=True)))
    assert "Not a medical encoder" not in render((medical,))


def test_each_encoder_on_the_page_has_its_own_notice() -> None:
    first, second = samples.searches()
    other = replace(second, result=replace(second.result, encoder=samples.encoder(name="another")))
    assert render((first, other, first)).count('class="banner"') == 2


def test_missing_facts_are_said_to_be_missing() -> None:
    nothing, stated = samples.searches()
    assert render((nothing,)).count('class="missing">not stated') == 6 * 4  # modality, body part, age, sex
    assert "not stated<" not in render((stated,))


def test_patients_and_uids_are_never_printed() -> None:
    search, _ = samples.filled("marker")
    text = render((search,))
    for name in ("patient_id", "study_uid", "series_uid", "instance_uid", "study_date", "study_description"):
        assert name not in text


def test_same_input_same_text() -> None:
    assert render(samples.searches()) == render(samples.searches())


def test_a_search_without_hits_or_query_picture_says_so() -> None:
    empty = PageSearch("words only", SearchResult((), (), samples.encoder(), 0))
    outline = Outline(render((empty,)))
    assert "No prior case was found in scope." in outline.words
    assert "This search had no image." in outline.words


def test_votes_and_the_reason_for_no_call_are_in_words() -> None:
    search, _ = samples.searches()
    decision = Decision("outcome", Call.ABSTAIN, search.decisions[0].votes, (), "TOO_FEW_CASES", "Only four.")
    outline = Outline(render((replace(search, decisions=(decision,)),)))
    assert "No call: too few cases" in outline.words
    for said in ("pneumonia", "75%", "3 cases", "normal", "25%", "1 case", "Only four."):
        assert said in outline.words
    assert [rect["width"] for rect in outline.named("rect")] == ["75.00", "25.00"]


def test_headings_never_skip_a_level_and_the_landmarks_are_there() -> None:
    outline = Outline(render(samples.searches()))
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in outline.elements}


@pytest.mark.parametrize("theme", [0, 1])
def test_text_contrast_is_at_least_four_and_a_half(theme: int) -> None:
    css = (Path(page.__file__).parent / "evidence.css").read_text()
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", css.split(":root {")[1 + theme].split("}")[0]))
    pairs = [(ink, paper) for ink in ("ink", "soft", "accent") for paper in ("paper", "card")]
    for ink, paper in [*pairs, ("warn-ink", "warn-paper"), ("warn-soft", "warn-paper")]:
        assert _contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.1."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_page_without_a_search_or_with_a_ragged_table_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one search"):
        render(())
    with pytest.raises(InvalidInput, match="2 cells"):
        render(samples.searches(), Table("", ("a", "b"), (("1", "2"), ("1",))))


@pytest.mark.parametrize(
    ("years", "said"),
    [
        (None, "not stated"),
        (0.0, "0 years"),
        (3 / 365.25, "3 days"),
        (1 / 12, "1 month"),
        (11 / 12, "11 months"),
        (1.5, "18 months"),
        (2.0, "2 years"),
        (58.9, "58 years"),
    ],
)
def test_ages_as_a_clinician_writes_them(years: float | None, said: str) -> None:
    assert words.age(years) == said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (CaseFacts(), "not stated"),
        (CaseFacts(body_part="WHOLE BODY"), "Whole body"),
        (CaseFacts(body_part="Left Knee"), "Left Knee"),
        (CaseFacts(body_part="EXTREMITY", laterality="R", view="AP"), "Extremity, right, AP"),
        (CaseFacts(laterality="B"), "not stated, both sides"),
    ],
)
def test_body_part_with_side_and_view(facts: CaseFacts, said: str) -> None:
    assert words.body_part(facts) == said


@pytest.mark.parametrize(("cosine", "said"), [(0.876, "0.88"), (-0.004, "0.00"), (-0.25, "−0.25"), (1.0, "1.00")])
def test_similarity_has_two_decimals_and_a_true_minus(cosine: float, said: str) -> None:
    assert words.similarity(cosine) == said


@pytest.mark.parametrize(("code", "said"), [("F", "female"), ("O", "other"), ("", "not stated"), ("X", "X")])
def test_sex_in_words(code: str, said: str) -> None:
    assert words.sex(code) == said
