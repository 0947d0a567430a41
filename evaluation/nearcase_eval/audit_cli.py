"""The `nearcase-audit` command: from a table of scores to a report, on a laptop and without a network.

Exit codes: 0 pass, 1 fail, 2 bad input, 3 inconclusive.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearcase.errors import NearcaseError

PASS, FAIL, BAD_INPUT, INCONCLUSIVE = 0, 1, 2, 3

# Findings are computed beside each other in threads; a BLAS with threads of its own would fight them for the cores.
# This has to be said before NumPy is imported, and a user who says otherwise is obeyed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    import click

    from nearcase_eval.audit.choices import FILE, audit_options, date_of, formats_of, input_options, plan_of
except ModuleNotFoundError as error:
    if (error.name or "").startswith("nearcase"):
        raise  # a fault of ours, not a missing extra
    print(f"nearcase-audit: {error.name} is not installed; run: pip install 'nearcase[evaluation]'", file=sys.stderr)
    raise SystemExit(BAD_INPUT) from None

if TYPE_CHECKING:
    from nearcase_eval.audit.report import Judged, Report

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="nearcase", prog_name="nearcase-audit")
def group() -> None:
    """Audit a table of scores: how well they find what they should, and whether as well in every group.

    \b
    nearcase-audit run scores.csv --by sex --by age --op sens=0.95:pac@0.05 --tolerance auc=0.05,fnr=0.05 --out audit

    Exit codes: 0 pass, 1 fail, 2 bad input, 3 inconclusive (too few data to tell).
    """


@group.command()
@audit_options
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("audit"), show_default=True)
@click.option("--format", "formats", default="json,html,md,csv", show_default=True, help="What is written.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def run(scores: Path, out: Path, formats: str, as_json: bool, **options: Any) -> int:
    """Audit SCORES, a .csv, .tsv, .csv.gz or .parquet table with one row for each image."""
    from nearcase_eval.audit.as_json import plain
    from nearcase_eval.audit.card import Card, read_card
    from nearcase_eval.audit.intake import read_rows, roles_of
    from nearcase_eval.audit.run import audit
    from nearcase_eval.audit.writing import write

    wanted = formats_of(formats)
    card = read_card(options["card"]) if options["card"] else Card()
    sources, roles = roles_of(scores, options, say=_say)
    table, metadata, inputs = read_rows(sources, roles, options)
    plan = plan_of(options, rows=table.rows, card=card)
    from nearcase_eval.audit.frame import frame_of

    frame = frame_of(table, roles, plan, metadata=metadata)
    _say(f"rows: {frame.rows_read:,} read, {int(frame.test.sum()):,} tested, {plan.replicates:,} replicates")
    title, date = options["title"], date_of(options["date"])
    done = {"title": title, "date": date, "inputs": inputs}
    several = len(frame.outcomes) > 1
    report = audit(frame, roles, plan, card=card, progress=_done if several else lambda finding: None, **done)
    files = write(report, out, wanted)
    if not as_json:
        for line in (*report.summary.tested, "", *map(_judged_line, report.summary.judged), "", _verdict_line(report)):
            _print(line)
    else:
        _print_json({"summary": plain(report.summary), "files": [str(file) for file in files]})
    for file in files:
        _say(f"wrote {file}")
    return exit_code(report.summary.verdict.value)


@group.command()
@input_options
@click.option("--out", type=FILE, default=Path("operating_point.json"), show_default=True)
def threshold(scores: Path, out: Path, **options: Any) -> int:
    """Choose a threshold on the calibration part of SCORES and write it, with what it promises, to a file."""
    from nearcase_eval.audit.intake import read_rows, roles_of
    from nearcase_eval.audit.threshold_file import choose

    sources, roles = roles_of(scores, options, say=_say)
    table, metadata, inputs = read_rows(sources, roles, options)
    found = choose(table, metadata, roles, options, inputs)
    out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for each in found["operating_points"]:
        _print(f"{each['finding']}: score >= {each['threshold']!r} ({each['name']}). Promise: {each['guarantee']}.")
    _say(f"wrote {out}")
    return PASS


@group.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option("--json", "as_json", is_flag=True)
def compare(first: Path, second: Path, as_json: bool) -> int:
    """Set two reports side by side: what changed from FIRST to SECOND, and whether a verdict got worse."""
    from nearcase_eval.audit.as_json import read_report, reading
    from nearcase_eval.audit.difference import changes, is_worse

    before, after = read_report(first), read_report(second)
    with reading(first, second):
        found = changes(before, after)
    if as_json:
        _print_json({"changes": found})
    else:
        for each in found:
            _print(each["sentence"])
    return FAIL if any(is_worse(each) for each in found) else PASS


@group.command()
@click.argument("report", type=FILE)
@click.option("--policy", type=FILE, required=True, help="Rules that the report must meet: TOML.")
@click.option("--json", "as_json", is_flag=True)
def check(report: Path, policy: Path, as_json: bool) -> int:
    """Hold a report to a policy; prints each rule with pass, fail or inconclusive."""
    from nearcase_eval.audit.as_json import plain, read_report, reading
    from nearcase_eval.audit.policy import held_to, read_policy, verdict_of

    found, rules = read_report(report), read_policy(policy)
    with reading(report):
        results = held_to(found, rules)
    verdict = verdict_of(results)
    if as_json:
        _print_json({"verdict": verdict, "rules": [plain(each) for each in results]})
    else:
        for each in results:
            _print(f"{each.verdict:<13}{each.rule}: {each.found}")
        _print(f"verdict: {verdict}")
    return exit_code(verdict)


@group.command()
def schema() -> int:
    """Print the JSON schema of the report."""
    from importlib.resources import files

    click.echo(files("nearcase_eval.audit").joinpath("schema.json").read_text("utf-8"), nl=False)
    return PASS


@group.command()
@click.argument("metric", required=False)
def explain(metric: str | None) -> int:
    """Say what a METRIC of the report means, how it is computed and where it comes from; without one, list them."""
    from nearcase_eval.audit.explain import EXPLAINED, explained

    if metric is None:
        for name, entry in EXPLAINED.items():
            _print(f"{name:<20}{entry.title}")
    else:
        _print(explained(metric))
    return PASS


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits."""
    try:
        code = group.main(args=arguments, prog_name="nearcase-audit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = BAD_INPUT
    except click.Abort:
        print("nearcase-audit: interrupted", file=sys.stderr)
        code = 130
    except NearcaseError as error:
        print(f"nearcase-audit: {error}", file=sys.stderr)
        code = BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()
        code = BAD_INPUT
    except OSError as error:
        print(f"nearcase-audit: {error.filename or ''}: {error.strerror}".replace(": :", ":"), file=sys.stderr)
        code = BAD_INPUT
    sys.exit(code)


def exit_code(verdict: str) -> int:
    """Returns 0 for pass, 1 for fail, 3 for anything that is not decided."""
    return {"pass": PASS, "fail": FAIL}.get(verdict, INCONCLUSIVE)


def _judged_line(judged: Judged) -> str:
    from nearcase_eval.audit.wording import VERDICTS

    return f"{VERDICTS[judged.verdict]:<18}{judged.finding}. {judged.sentence}"


def _verdict_line(report: Report) -> str:
    return f"verdict: {report.summary.verdict.value}. {report.summary.sentence}"


def _say(text: str) -> None:
    click.echo(text, err=True)


def _done(finding: str) -> None:
    _say(f"done: {finding}")


def _print(text: str) -> None:
    click.echo(text)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
