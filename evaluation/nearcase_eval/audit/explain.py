"""What each metric of the report means, how it is computed and where it comes from: `nearcase-audit explain`."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from nearcase.errors import NotFound


class Entry(NamedTuple):
    """One metric."""

    title: str
    meaning: str
    computed: str
    source: str


WILSON = "Wilson 1927; over patients by the ratio estimator and its effective n, Rao and Scott 1992"

EXPLAINED: dict[str, Entry] = {
    "auroc": Entry(
        "Area under the ROC curve",
        "Of two images, one with the finding and one without, how often the score ranks the right one higher. 0.5 is "
        "chance, 1 is perfect. It knows no threshold and no prevalence.",
        "Exact, ties count one half. The interval is DeLong's, over patients when they have several images; on the "
        "logit scale, so that it stays in 0..1. Below ten patients of a class, Newcombe's.",
        "DeLong 1988; Obuchowski 1997 for patients; Newcombe 2006",
    ),
    "auroc_rows": Entry(
        "AUROC as if rows were independent",
        "The same value with the interval that ignores patients. It is too narrow when patients have several images; "
        "it is shown so that the two can be compared.",
        "DeLong's variance with every row its own patient.",
        "DeLong 1988",
    ),
    "auprc": Entry(
        "Area under the precision-recall curve",
        "Precision averaged over recall. A score without information has the prevalence, so read it beside that, and "
        "do not compare groups of different prevalence.",
        "Average precision by the step rule. Interval on the logit scale with the number of positive patients, or by "
        "the patient bootstrap (--ci bootstrap).",
        "Boyd, Eng and Page 2013",
    ),
    "partial_auroc": Entry(
        "Partial AUROC",
        "AUROC over specificities of 0.9 to 1, where screening works; 0.5 is chance and 1 is perfect.",
        "Standardised after McClish. An interval needs --ci bootstrap.",
        "McClish 1989",
    ),
    "prevalence": Entry(
        "Prevalence",
        "Share of the rows that have the finding. In a test set that was enriched it is not that of the clinic.",
        "k of n.",
        WILSON,
    ),
    "sensitivity": Entry(
        "Sensitivity (TPR, recall)",
        "Of the images with the finding, the share that is called.",
        "Rows with score >= threshold among the positives.",
        WILSON,
    ),
    "specificity": Entry(
        "Specificity (TNR)",
        "Of the images without the finding, the share that is not called.",
        "Rows with score < threshold among the negatives.",
        WILSON,
    ),
    "miss_rate": Entry(
        "Miss rate (FNR): underdiagnosis",
        "Of the images with the finding, the share that is missed. A gap means that one group is underdiagnosed.",
        "1 - sensitivity, at the one threshold that holds for all groups.",
        "Seyyed-Kalantari 2021",
    ),
    "false_alarm_rate": Entry(
        "False-alarm rate (FPR): overdiagnosis",
        "Of the images without the finding, the share that is called. When the label is 'no finding', this is the rate "
        "at which the ill are called healthy: underdiagnosis.",
        "1 - specificity, at the one threshold that holds for all groups.",
        "Seyyed-Kalantari 2021",
    ),
    "ppv": Entry(
        "Positive predictive value",
        "Of the called images, the share that has the finding. It depends on prevalence: see the stated prevalences.",
        "At the rows' own prevalence k of n; at a stated one from sensitivity and specificity by Bayes' rule, with "
        "logit intervals.",
        "Mercaldo, Lau and Zhou 2007",
    ),
    "npv": Entry(
        "Negative predictive value",
        "Of the images that are not called, the share that is free of the finding. It depends on prevalence.",
        "As for ppv.",
        "Mercaldo, Lau and Zhou 2007",
    ),
    "flagged": Entry(
        "Flagged share", "Share of all images that is called: the work that the score makes.", "k of n.", WILSON
    ),
    "likelihood_ratios": Entry(
        "Likelihood ratios LR+ and LR-",
        "By how much a call, or no call, multiplies the odds of the finding. They do not depend on prevalence.",
        "LR+ = sensitivity / (1 - specificity); LR- = (1 - sensitivity) / specificity; log intervals.",
        "Simel 1991",
    ),
    "threshold": Entry(
        "Threshold and its promise",
        "A row is called when its score is at or above the threshold. 'empirical' reaches the target on the rows where "
        "it was chosen and promises nothing; 'conformal' keeps it on average; 'pac' keeps it with the stated "
        "confidence.",
        "Order statistics of one score per patient: patients are counted, not images. Too few patients: no threshold.",
        "split conformal prediction; exact binomial tolerance limits",
    ),
    "net_benefit": Entry(
        "Net benefit",
        "True positives per image, less the false positives at the exchange rate that the threshold "
        "probability implies; "
        "better than calling all and calling none, or not worth using.",
        "TP/N - FP/N x pt/(1 - pt). Needs scores that are probabilities.",
        "Vickers and Elkin 2006",
    ),
    "in_the_large": Entry(
        "Calibration in the large",
        "Log odds that must be added to the probabilities to be right on average. 0 is right; above 0 the risk is "
        "understated.",
        "Logistic fit with the logit of the probability as offset; robust variance over patients.",
        "Van Calster 2016, 2019",
    ),
    "slope": Entry(
        "Calibration slope",
        "1 is right; below 1 the probabilities are too extreme, above 1 too timid.",
        "Logistic fit on the logit of the probability. Vote shares of k neighbours are clipped at 1/(2k) first.",
        "Van Calster 2016, 2019",
    ),
    "intercept": Entry(
        "Calibration intercept",
        "The intercept of the fit that has the slope; read it only together with the slope.",
        "Logistic fit on the logit of the probability.",
        "Van Calster 2016",
    ),
    "observed_expected": Entry(
        "Observed over expected (O/E)",
        "Findings that were there for each that was predicted. 1 is right.",
        "Sum of outcomes over sum of probabilities, log interval.",
        "Van Calster 2019",
    ),
    "ece_width": Entry(
        "Expected calibration error, equal width",
        "Mean distance between predicted and observed over ten bins of equal width. Noise makes it larger "
        "than the truth.",
        "Patient bootstrap interval, biased upward.",
        "Guo 2017",
    ),
    "ece_mass": Entry(
        "Expected calibration error, equal counts",
        "The same over ten bins of equal counts, which is steadier where most scores are small.",
        "Patient bootstrap interval, biased upward.",
        "Nixon 2019",
    ),
    "brier": Entry(
        "Brier score",
        "Mean squared distance between probability and outcome; 0 is perfect. It falls with the prevalence.",
        "Mean over rows, variance over patients.",
        "Brier 1950",
    ),
    "brier_skill": Entry(
        "Brier skill",
        "How much better than always saying the prevalence; 0 is no better, 1 is perfect.",
        "1 - Brier / Brier of the prevalence.",
        "Murphy 1973",
    ),
    "macro": Entry(
        "Macro average",
        "Plain mean of the AUROCs of all findings that have both classes; the dropped ones are listed.",
        "Covariance over patients.",
        "DeLong 1988; Obuchowski 1997",
    ),
    "micro": Entry(
        "Micro average",
        "AUROC of all rows of all findings in one ranking. It supposes that scores mean the same for each finding.",
        "As auroc, over patients.",
        "Obuchowski 1997",
    ),
    "gap": Entry(
        "Largest gap, and its verdict",
        "The largest difference between two groups. pass: the whole interval is within the tolerance; fail: "
        "all of it is "
        "beyond; inconclusive: the data can not tell. A p-value above 0.05 never makes a pass.",
        "Interval simultaneous over all pairs of groups (Bonferroni), over patients who may be in several groups.",
        "Schuirmann 1987 (two one-sided tests)",
    ),
    "gap_to_rest": Entry(
        "Gap to the rest",
        "A group against all others together, which shows who is served worse.",
        "Difference with its interval over patients.",
        "Obuchowski 1997; Rao and Scott 1992",
    ),
    "equalised_odds": Entry(
        "Equalised odds difference",
        "The larger of the sensitivity gap and the false-alarm gap at the one threshold, over groups that have enough "
        "patients of both classes. It is shown, not judged: its two halves are.",
        "Simultaneous interval over all pairs of both rates.",
        "Hardt 2016",
    ),
    "p": Entry(
        "p-value of a gap, raw and adjusted",
        "How often a gap this large would come by chance if groups did not differ. The adjusted one allows "
        "for the size "
        "of the family of tests, which is printed.",
        "Group labels permuted within outcome class and by patient, (1 + b)/(1 + B); Holm for the declared family, "
        "Benjamini-Hochberg for crossings. Without resampling, the chi-square of equal groups.",
        "Phipson and Smyth 2010; Holm 1979; Benjamini and Hochberg 1995",
    ),
    "expected_by_chance": Entry(
        "Gap expected by chance",
        "The mean largest gap if groups did not differ. It is above 0 because the largest is looked for.",
        "Mean over the permutations.",
        "Phipson and Smyth 2010",
    ),
    "minimum_detectable": Entry(
        "Minimum detectable gap",
        "The true gap that these patients would show with a power of 0.80. A tolerance below it can not be "
        "proven here.",
        "(z of the interval + z of the power) x standard error.",
        "normal approximation",
    ),
    "homogeneity": Entry(
        "Homogeneity (Cochran's Q)",
        "Whether any groups differ at all.",
        "Chi-square of contrasts with their covariance over patients.",
        "Cochran 1954",
    ),
    "baseline": Entry(
        "Confounder baseline",
        "The AUROC of age, sex or other columns alone. A score that is not clearly better may have learned "
        "the patients "
        "instead of the finding.",
        "Logistic regression, cross-validated by patient; paired difference to the score.",
        "DeLong 1988; Obuchowski 1997",
    ),
    "difference": Entry(
        "Difference of two scores",
        "AUROC of the score less that of the other, on the same rows; non-inferior when its lower limit is "
        "above -margin.",
        "Paired DeLong test, over patients.",
        "DeLong 1988; Obuchowski 1997",
    ),
    "state": Entry(
        "State of a number",
        "ok; low precision (a class with fewer than 50 patients, or an interval of last resort); not "
        "estimable (with the "
        "reason; it is then no number at all); suppressed (hidden, see --suppress).",
        "A group needs 10 patients with and 10 without the finding unless --min-pos and --min-neg say otherwise.",
        "CMS cell size policy for suppression",
    ),
}

ALIASES = {
    "auc": "auroc",
    "fnr": "miss_rate",
    "fpr": "false_alarm_rate",
    "tpr": "sensitivity",
    "tnr": "specificity",
    "recall": "sensitivity",
    "precision": "ppv",
    "ap": "auprc",
    "ece": "ece_mass",
    "eod": "equalised_odds",
    "equalised odds": "equalised_odds",
    "equalized_odds": "equalised_odds",
    "lr+": "likelihood_ratios",
    "lr-": "likelihood_ratios",
    "ratios": "likelihood_ratios",
    "benefit": "net_benefit",
    "p_adjusted": "p",
    "largest": "gap",
    "to_rest": "gap_to_rest",
    "pauc": "partial_auroc",
    "predictive": "ppv",
    "bins": "ece_mass",
}


def explained(metric: str) -> str:
    """Returns the explanation in plain lines.

    Raises:
        NotFound: There is no such metric; the message names those that are near.
    """
    name = metric.lower().replace("-", "_") if metric.lower() not in ALIASES else metric.lower()
    name = ALIASES.get(name, name)
    if name not in EXPLAINED:
        near = difflib.get_close_matches(name, [*EXPLAINED, *ALIASES], n=3)
        hint = f"perhaps {' or '.join(near)}" if near else "nearcase-audit explain lists all"
        raise NotFound(f"there is no metric {metric!r}; {hint}")
    entry = EXPLAINED[name]
    return f"{entry.title} [{name}]\n{entry.meaning}\nComputed: {entry.computed}\nSource: {entry.source}"
