"""From a labelled library to one sealed file for each finding: calibration, operating points, and their limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nearcase import __version__
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import CALIBRATION, TEST, Fitted
from nearcase.decide.prompt import PromptHead
from nearcase.errors import InvalidInput, Unsupported
from nearcase.types import Interval
from nearcase_eval.fit_area import patient_auroc
from nearcase_eval.fit_calibration import calibrate, prevalence_of
from nearcase_eval.fit_calls import with_calls
from nearcase_eval.fit_limits import familiarity, validated_groups
from nearcase_eval.fit_points import Wish, check_wishes, curve_points, fit_points
from nearcase_eval.fit_probe import train
from nearcase_eval.fit_reference import Reference
from nearcase_eval.fit_scores import residuals, scored
from nearcase_eval.fit_split import TRAINING, Parts, split
from nearcase_eval.sample import Sample


@dataclass(frozen=True, slots=True)
class Plan:
    """How to fit; all of it is told in the file."""

    wishes: tuple[Wish, ...]
    confidence: float = 0.95  # of PAC points
    calibration: str = "isotonic"  # or platt
    probe: str = "logistic"  # or mlp
    by: tuple[str, ...] = ("sex", "age")
    gap: float = 0.1  # by which a group's AUROC and rates may be below those of all
    seed: int = 0

    def __post_init__(self) -> None:
        check_wishes(self.wishes)


def fit(finding: Finding, reference: Reference, plan: Plan, prompts: PromptHead | None = None) -> Fitted:
    """Returns the fit; the same library, plan and seed give the same bytes.

    Args:
        finding: What is decided.
        reference: The library, and what can be asked of it.
        plan: How to fit.
        prompts: The embedded words, where the finding's scorer uses them (`fit_prompt.prompts_of`).

    Raises:
        InvalidInput: Too few patients with or without the finding for any fit.
        Unsupported: The finding's scorer needs prompts, and there are none.
    """
    kinds = {kind for kind, _ in finding.scorer.parts}
    if "prompt" in kinds and prompts is None:
        raise Unsupported("expected an encoder with a text tower for prompts, got none")
    asked = [each for each in reference.asked if each.priors]  # of the others a server says NO_EVIDENCE
    parts = split(asked, finding, with_training="probe" in kinds, seed=plan.seed)
    probe = train(parts.images[TRAINING], finding, kind=plan.probe, seed=plan.seed) if "probe" in kinds else None
    about = replace(_about(finding, reference, parts, plan), probe=probe, prompts=prompts)
    if finding.is_number:
        return replace(about, residuals=residuals(parts.images[CALIBRATION], finding, about))
    return _class(about, finding, reference, parts, plan)


def _class(about: Fitted, finding: Finding, reference: Reference, parts: Parts, plan: Plan) -> Fitted:
    calibration, test = (scored(parts.images[name], finding, about) for name in (CALIBRATION, TEST))
    _check(calibration, test)
    points = fit_points(
        plan.wishes,
        calibration,
        test,
        confidence=plan.confidence,
        seed=plan.seed,
        share=parts.calibration_share,
    )
    fitted = replace(
        about,
        calibration=calibrate(calibration, finding, plan.calibration),
        points=points.points,
        pairs=points.pairs,
        refusals=points.refusals,
        curve=curve_points(calibration, test, seed=plan.seed),
        auroc=_area(test),
        prevalence=prevalence_of(test),
        groups=validated_groups(reference.asked, parts.images[CALIBRATION], finding, about, plan.by),
    )
    return with_calls(parts.images[TEST], test, finding, fitted)


def _about(finding: Finding, reference: Reference, parts: Parts, plan: Plan) -> Fitted:
    others = [each for name, images in parts.images.items() if name != TEST for each in images]
    return Fitted(
        finding=finding.name,
        finding_version=finding.version,
        label=finding.label,
        positive_values=finding.positive_values,
        negative_values=finding.negative_values,
        scope=finding.scope.text,
        scorer=finding.scorer,
        floors=finding.floors,
        encoder=reference.encoder,
        library=reference.library,
        unit="image",
        splits=parts.splits,
        gap=plan.gap,
        familiarity=familiarity(others, parts.images[TEST]),
        made_by=f"nearcase-eval fit {__version__}, seed {plan.seed}",
    )


def _check(calibration: Sample, test: Sample) -> None:
    for data in (calibration, test):
        if not 0 < data.positives < data.n:
            raise InvalidInput("expected neighbours for images with and without the finding, got them for one kind")


def _area(test: Sample) -> Interval | None:
    found = patient_auroc(test)
    if found.value is None or found.low is None or found.high is None:
        return None
    return Interval(found.value, found.low, found.high, found.level)
