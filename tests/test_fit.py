"""Fitting: sealed and repeatable, whole patients in each part, refusals that say how many patients it takes."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from made_library import POINT, fill, finding_text, fitted_on, made_cases, reference_of
from serving import picture

from nearcase.decide.decision import Asked as DecisionAsked
from nearcase.decide.decision import Context, decide
from nearcase.decide.findings import read_finding, read_findings
from nearcase.decide.fitted import read_fitted, write_fitted
from nearcase.errors import InvalidInput, Unsupported
from nearcase.report.decision_view import percent
from nearcase.types import Call, Case, CaseFacts, Hit
from nearcase_eval.auroc import auroc
from nearcase_eval.fit import Plan, fit
from nearcase_eval.fit_page import predictive_rows, render_fit
from nearcase_eval.fit_points import (
    DEFAULT,
    choose,
    fit_points,
    held_out_rates,
    one_image_each,
    read_wish,
    read_wishes,
)
from nearcase_eval.fit_reference import Reference, nameless
from nearcase_eval.fit_scores import scored
from nearcase_eval.fit_split import split
from nearcase_eval.sample import Sample, sample_of

NORMAL = NormalDist()
TEXT = finding_text("mass", POINT)
PROBE = finding_text("mass", POINT, scorer='kind = "probe"\nk = 25')
BLEND = finding_text("mass", POINT, scorer='kind = "blend"\nk = 25\nblend = { neighbours = 1.0, probe = 2.0 }')


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    fill(folder, made_cases())
    return folder


@pytest.fixture(scope="module")
def reference(data: Path) -> Reference:
    return reference_of(data, TEXT)


@pytest.mark.parametrize("text", [TEXT, PROBE, BLEND], ids=["neighbours", "probe", "blend"])
def test_the_same_library_and_seed_give_the_same_bytes(reference: Reference, text: str) -> None:
    first, again = write_fitted(fitted_on(reference, text)), write_fitted(fitted_on(reference, text))
    assert first == again
    assert read_fitted(first).auroc


def test_no_patient_is_in_two_parts_and_none_finds_themself(reference: Reference) -> None:
    parts = split(reference.asked, read_finding(TEXT, "x"), with_training=True, seed=3)
    patients = [{each.patient for each in images} for images in parts.images.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 200
    assert sum(each.images for each in parts.splits) == len(reference.asked)
    own = {(each.patient, each.facts.instance_uid): each for each in reference.asked}
    names = {case.case_id: f"patient |{case.facts.patient_id}" for case, _ in made_cases()}
    assert all(names[prior.case_id] != each.patient for each in own.values() for prior in each.priors)


def test_held_out_figures_are_those_of_counting(reference: Reference) -> None:
    fitted, finding = fitted_on(reference, TEXT), read_finding(TEXT, "x")
    parts = split(reference.asked, finding, with_training=False, seed=0)
    test = scored(parts.images["test"], finding, None)
    for point in fitted.points:
        called = test.score >= point.threshold
        assert point.sensitivity.value == pytest.approx(called[test.truth].mean())
        assert point.specificity.value == pytest.approx(1.0 - called[~test.truth].mean())
    expected = auroc(test.truth, test.score, patient=test.patient)
    assert fitted.auroc
    assert fitted.auroc.value == pytest.approx(expected.value)  # each patient has two images
    assert (fitted.auroc.low, fitted.auroc.high) == pytest.approx((expected.low, expected.high))


def test_a_refusal_says_how_many_patients_it_takes(reference: Reference) -> None:
    plan = Plan(tuple(map(read_wish, ("sensitivity=0.999:pac", "specificity=0.5:pac"))), by=())
    fitted = fit(read_finding(TEXT, "x"), reference, plan)
    (refusal,) = fitted.refusals
    assert (refusal.name, refusal.patients_needed, refusal.patients) == ("sensitivity-99_9-pac", 2995, 40)
    assert "2995 patients with the finding in the calibration part, which has 40" in refusal.reason
    assert "about 5990 in the library" in refusal.reason
    assert fitted.point_names == ("specificity-50-pac",)


@pytest.mark.parametrize(("text", "needed"), [(TEXT, 58), (PROBE, 116)], ids=["half", "quarter"])
def test_a_library_of_the_patients_that_a_refusal_names_is_enough(reference: Reference, text: str, needed: int) -> None:
    """Of sensitivity 0.9 with confidence 0.95, which takes 29 patients in the calibration part."""
    finding, plan = read_finding(text, "x"), Plan(read_wishes(("sensitivity=0.9:pac",)), by=())
    negatives = tuple(each for each in reference.asked if each.value == "0")
    positive = next(each for each in reference.asked if each.value == "1")
    for count in (needed - 4, needed):
        more = tuple(replace(positive, patient=f"more {number}") for number in range(count))
        fitted = fit(finding, replace(reference, asked=negatives + more), plan)
        assert bool(fitted.points) == (count == needed)
        assert all(f"about {needed} in the library" in each.reason for each in fitted.refusals)


def test_the_pair_is_there_exactly_where_a_score_can_lie_between(reference: Reference) -> None:
    finding = read_finding(TEXT, "x")
    parts = split(reference.asked, finding, with_training=False, seed=0)
    rows = scored(parts.images["calibration"], finding, None)
    wishes = [read_wish("specificity=0.95:pac"), read_wish("sensitivity=0.95:pac")]
    found = fit_points(wishes, rows, rows, confidence=0.5, seed=0, share=0.5)
    thresholds = {point.name: point.threshold for point in found.points}
    assert bool(found.pairs) == (thresholds["specificity-95-pac"] > thresholds["sensitivity-95-pac"])


def test_groups_with_too_few_patients_are_not_validated(reference: Reference) -> None:
    few = tuple(
        replace(each, facts=replace(each.facts, sex="O")) if int(each.patient[10:]) < 5 else each
        for each in reference.asked
    )
    fitted = fit(read_finding(TEXT, "x"), replace(reference, asked=few), Plan(tuple(map(read_wish, DEFAULT))))
    told = {(group.attribute, group.name): group for group in fitted.groups}
    assert not told["sex", "O"].is_validated
    assert "10 are needed" in told["sex", "O"].reason
    assert ("age", "0-18") not in told
    assert all(told[key].reason == "" for key in told if told[key].is_validated)


def test_what_can_not_be_fitted_is_refused(reference: Reference, data: Path, tmp_path: Path) -> None:
    plan = Plan((), by=())
    finding = read_finding(TEXT, "x")
    with pytest.raises(InvalidInput, match="more patients"):
        fit(finding, replace(reference, asked=reference.asked[:2]), plan)
    prompts = replace(finding, scorer=replace(finding.scorer, kind="prompt"))
    with pytest.raises(Unsupported, match="text tower"):
        fit(prompts, reference, plan)
    with pytest.raises(InvalidInput, match="found no library"):
        reference_of(tmp_path, TEXT)
    for wrong in ("sensitivity=1.5:pac", "sensitivity=0.9:magic", "cost=0@0.1", ""):
        with pytest.raises(InvalidInput, match="expected a point like"):
            read_wish(wrong)


def test_two_targets_never_have_one_name() -> None:
    texts = ("sensitivity=0.9:pac", "sensitivity=0.999999999:pac", "sensitivity=0.9999999999:pac", "cost=10@0.02")
    names = [wish.name for wish in read_wishes(texts)]
    assert names == [
        "sensitivity-90-pac",
        "sensitivity-99_9999999-pac",
        "sensitivity-99_99999999-pac",
        "cost-10-at-0.02",
    ]
    for twice in (("youden", "youden"), ("sensitivity=0.90:pac", "sensitivity=.9:pac"), ("cost=1@0.1", "cost=1.0@.10")):
        with pytest.raises(InvalidInput, match="twice") as caught:
            read_wishes(twice)
        assert caught.value.field == "point"
        with pytest.raises(InvalidInput, match="twice"):
            Plan(tuple(map(read_wish, twice)))
    for wrong in ("sensitivity=0.0:pac", "sensitivity=0.9999999999999:pac", "sensitivity=1.0:pac", "cost=1@0.0"):
        with pytest.raises(InvalidInput, match="expected a point like"):
            read_wish(wrong)


def test_a_promise_tells_its_whole_target(reference: Reference) -> None:
    plan = Plan(read_wishes(("sensitivity=0.5:pac", "sensitivity=0.50000001:pac")), by=(), confidence=0.8999999999)
    promises = [point.guarantee for point in fit(read_finding(TEXT, "x"), reference, plan).points]
    assert sorted(promises) == [
        f"sensitivity of at least {target} per image, with confidence 0.8999999999" for target in ("0.5", "0.50000001")
    ]


def of_patients(counts: Sequence[int], scores: Sequence[float], truth: bool) -> Sample:
    """Each patient's images have one score."""
    patient = np.repeat(np.arange(len(counts)), counts)
    return sample_of(np.full(patient.size, truth), np.repeat(scores, counts), patient)


def test_patients_are_counted_however_many_images_they_have() -> None:
    """One patient with 1000 images that are all called, nine with one that is not: 1 of 10, and not 1000 of 1009."""
    with_it = of_patients([1000, *[1] * 9], [0.9, *[0.1] * 9], True)
    without = of_patients([1000, *[1] * 9], [0.1, *[0.05] * 9], False)
    both = Sample(
        np.concatenate([with_it.truth, without.truth]),
        np.concatenate([with_it.score, without.score]),
        np.concatenate([with_it.patient, without.patient + 10]),
        20,
    )
    ((sensitivity, specificity),) = held_out_rates(both, np.array([0.5]))
    assert (sensitivity.value, sensitivity.effective_n) == (0.1, 10.0)
    assert (specificity.value, specificity.effective_n) == (1.0, 10.0)
    drawn = one_image_each(both, 0)
    assert (drawn.positives, drawn.n, drawn.patients) == (10, 20, 20)
    wish = read_wish("sensitivity=0.9:empirical")
    assert choose(wish, drawn, 0.95).value == 0.1  # of images 0.9 reaches 0.99 of them, of patients a tenth


def normal_images(rng: np.random.Generator, patients: int, tilt: float) -> Sample:
    """Patients differ, have 1 to 8 images each, and each image more tilts their scores."""
    counts = rng.integers(1, 9, patients)
    patient = np.repeat(np.arange(patients), counts)
    score = rng.normal(size=patients)[patient] + rng.normal(size=patient.size) + tilt * counts[patient]
    return sample_of(np.zeros(patient.size), score, patient)


def true_rate(threshold: float, aim: str, tilt: float) -> float:
    """Of an image of a new patient, who has 1 to 8 of them."""
    means = tilt * np.arange(1, 9)
    above = float(np.mean([1.0 - NORMAL.cdf((threshold - mean) / np.sqrt(2.0)) for mean in means]))
    return above if aim == "sensitivity" else 1.0 - above


@pytest.mark.parametrize("aim", ["sensitivity", "specificity"])
def test_pac_points_keep_their_promise_with_several_images_per_patient(aim: str) -> None:
    """Over 2,000 calibration draws, as the fit chooses; the naive way, of all images as draws, does not keep it."""
    rng, delta, runs = np.random.default_rng(23), 0.1, 2000
    wish, broken, naive = read_wish(f"{aim}=0.85:pac"), 0, 0
    tilt = 0.2 if aim == "sensitivity" else -0.2  # patients with many images are the easy ones
    for run in range(runs):
        drawn = normal_images(rng, 60, tilt)
        data = Sample(np.full(drawn.n, aim == "sensitivity"), drawn.score, drawn.patient, drawn.patients)
        for is_naive in (False, True):
            chosen = choose(wish, data if is_naive else one_image_each(data, run), 1.0 - delta).value
            assert chosen is not None
            is_broken = true_rate(chosen, aim, tilt) < 0.85
            naive, broken = naive + (is_naive and is_broken), broken + (not is_naive and is_broken)
    assert broken / runs <= delta + 3 * np.sqrt(delta * (1 - delta) / runs)
    assert naive / runs > delta + 0.05


def test_few_images_give_no_limit_of_one_in_a_hundred(reference: Reference) -> None:
    few = replace(reference, asked=tuple(each for each in reference.asked if int(each.patient[10:]) < 40))
    assert len(few.asked) < 100
    assert fit(read_finding(TEXT, "x"), few, Plan((), by=())).familiarity is None


def test_a_small_network_can_be_the_probe(reference: Reference) -> None:
    fitted = fit(read_finding(PROBE, "x"), reference, Plan((), probe="mlp", by=()))
    assert fitted.probe
    assert len(fitted.probe.layers) == 2
    assert fitted.auroc
    assert fitted.auroc.value > 0.8


def test_platt_and_isotonic_never_fall(reference: Reference) -> None:
    for kind in ("platt", "isotonic"):
        found = fit(read_finding(TEXT, "x"), reference, Plan((), calibration=kind, by=())).calibration
        assert found
        chances = [found.probability(score) for score in np.linspace(0, 1, 101)]
        assert chances == sorted(chances)


def test_the_page_of_a_fit_holds_its_figures_and_no_script(reference: Reference) -> None:
    fitted = fitted_on(reference, TEXT)
    page = render_fit(fitted, statement="An <encoder>.")
    assert page == render_fit(fitted, statement="An <encoder>.")
    assert fitted.sha256 in page
    assert "An &lt;encoder&gt;." in page
    assert "<script" not in page
    assert all(point.name in page for point in fitted.points)
    assert "count every image, also those on which this finding would abstain" in page


def test_the_share_of_images_with_a_call_is_what_the_server_would_say(reference: Reference) -> None:
    """Against deciding about each held-out image; a floor of agreement takes calls away and moves no rate of all."""
    text = finding_text("mass", f"{POINT}") + "[abstain]\nleast_agreement = 0.7\n"
    finding, fitted = read_finding(text, "x"), fitted_on(reference, text)
    context = Context(fitted.encoder, fitted.library, fitted.library.labelled_count, bytes(32))
    made: dict[str, list[bool]] = {}
    right: dict[tuple[str, bool], dict[str, list[bool]]] = {}
    for each in split(reference.asked, finding, with_training=False, seed=0).images["test"]:
        hits = [Hit(Case(p.case_id, CaseFacts(), {"mass": p.value}), p.similarity) for p in each.priors]
        found = decide(finding, fitted, hits, DecisionAsked(each.facts, each.vector), context).decision
        made.setdefault(each.patient, []).append(found.call is not Call.ABSTAIN)
        for said in found.point_calls:
            if said.call is not Call.ABSTAIN:
                own = right.setdefault((said.name, each.value == "1"), {}).setdefault(each.patient, [])
                own.append(said.call is (Call.POSITIVE if each.value == "1" else Call.NEGATIVE))
    assert fitted.called
    assert fitted.called.value == pytest.approx(np.mean([np.mean(own) for own in made.values()]))
    lax = fitted_on(reference, TEXT)
    assert lax.called
    assert lax.called.value > fitted.called.value > 0.0
    for point, other in zip(fitted.points, lax.points, strict=True):
        for has_finding, rate in ((True, point.called_sensitivity), (False, point.called_specificity)):
            counted = right[point.name, has_finding]
            assert rate
            assert rate.value == pytest.approx(np.mean([np.mean(own) for own in counted.values()]))
            assert rate.effective_n == len(counted)
        assert (point.sensitivity, point.specificity) == (other.sensitivity, other.specificity)
        assert point.called_specificity
        shown = f"<td>{percent(point.called_specificity.interval)}</td><td>{point.called_specificity.effective_n}</td>"
        assert shown in render_fit(fitted, statement="")
    assert f"would be made on {fitted.called.value:.0%}" in render_fit(fitted, statement="")


def test_predictive_values_are_those_at_the_held_out_prevalence(reference: Reference) -> None:
    """By Bayes' rule from the rates; two in five patients have a mass, in either part."""
    fitted = fitted_on(reference, TEXT)
    assert fitted.prevalence == pytest.approx(0.4)
    points = sorted(fitted.points, key=lambda point: point.threshold)
    page, rows = render_fit(fitted, statement=""), predictive_rows(fitted)
    assert len(rows) == len(points) > 0
    for point, (name, positive, negative) in zip(points, rows, strict=True):
        hits, alarms = 0.4 * point.sensitivity.value, 0.6 * (1.0 - point.specificity.value)
        misses, quiet = 0.4 - hits, 0.6 - alarms
        assert name == point.name
        assert float(positive.split("%")[0]) == pytest.approx(100 * hits / (hits + alarms), abs=0.6)
        assert float(negative.split("%")[0]) == pytest.approx(100 * quiet / (quiet + misses), abs=0.6)
        assert positive in page
        assert negative in page


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nearcase_eval", "fit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.system
def test_the_command_writes_what_a_server_reads(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mass.toml").write_text(TEXT)
    done = run(data, "--finding", tmp_path / "mass.toml", "--by", "none")
    assert done.returncode == 0, done.stderr
    assert "sensitivity-90-pac" in done.stdout
    _, fitted = read_findings(tmp_path)["mass"]
    assert fitted is not None
    assert fitted.held_out.positive_patients == 40
    assert (tmp_path / "mass.html").exists()
    (tmp_path / "mass.toml").write_text(TEXT.replace('fitted = "mass.json"\n', "").replace(POINT, ""))
    refused = run(data, "--finding", tmp_path / "mass.toml")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "mass.toml").write_text(TEXT)
    refused = run(tmp_path / "empty", "--finding", tmp_path / "mass.toml", "--point", "youden", "--point", "youden")
    assert refused.returncode == 2
    assert "youden twice" in refused.stderr  # before the library, which is not there, was looked for


@pytest.mark.system
def test_images_without_a_patient_are_told_of_and_bare_ids_are_one(tmp_path: Path) -> None:
    cases = made_cases(patients=40)
    nobody = [
        (replace(case, facts=replace(case.facts, patient_id="" if number < 6 else case.facts.patient_id)), vector)
        for number, (case, vector) in enumerate(cases)
    ]
    fill(tmp_path, nobody)
    found = reference_of(tmp_path, TEXT)
    assert nameless(found) == 6
    (tmp_path / "mass.toml").write_text(finding_text("mass", scorer="k = 5"))
    done = run(tmp_path, "--finding", tmp_path / "mass.toml", "--by", "none")
    assert done.returncode == 0, done.stderr
    for told in (done.stdout, (tmp_path / "mass.html").read_text()):
        assert "6 of 80 images state no patient" in " ".join(told.split())
    issued = [
        (replace(case, facts=replace(case.facts, patient_id_issuer="H" if number % 2 else "")), vector)
        for number, (case, vector) in enumerate(cases)
    ]
    fill(tmp_path / "issued", issued)
    again = reference_of(tmp_path / "issued", TEXT)
    assert len({each.patient for each in again.asked}) == len({case.facts.patient_id for case, _ in cases})
    assert nameless(again) == 0


def test_a_cohort_is_fitted_without_a_server(tmp_path: Path) -> None:
    with (tmp_path / "cohort.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "patient_id", "sex", "age", "label_mass"])
        for number in range(24):
            (tmp_path / f"{number}.png").write_bytes(picture(number % 2 * 1000 + number // 12))
            rows.writerow([f"{number}.png", f"P{number}", "M", "50", number % 2])
    head = 'name = "c"\nimages = "."\ntable = "cohort.csv"\n[[finding]]\nname = "mass"\ncolumn = "label_mass"\n'
    (tmp_path / "cohort.toml").write_text(head)
    (tmp_path / "mass.toml").write_text(finding_text("mass", scorer="k = 5"))
    done = run(tmp_path / "cohort.toml", "--finding", tmp_path / "mass.toml", "--by", "none")
    assert done.returncode == 0, done.stderr
    assert "LIBRARY_CHANGED" in done.stdout
    fitted = read_fitted((tmp_path / "mass.json").read_bytes())
    assert fitted.library.snapshot.startswith("cohort:24-")
    assert fitted.auroc
    assert fitted.auroc.value == 1.0
