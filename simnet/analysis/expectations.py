"""`expect:` of an experiment: does a figure of the summary hold what was promised?

A metric is a column of the summary, judged at every sweep point of each variant (or of the one named), or one of the
shares below, judged against their closed form with `equals: analytic`:

- `pod_share`, `serving_node_share`, `entry_node_share`: each name's share of connections against its expected share;
- `cross_node_share`: against 1 - sum a_n s_n, with a_n and s_n the expected shares of entry and serving node. That
  needs the two to be independent, which they are under the traffic policy Cluster.

A tolerance is an absolute number, or `<k>sigma`: k standard errors. For a share p of n connections that is
sqrt(p (1 - p) / n), with the expected p; for any other figure that of the mean over repeats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from simnet.analysis.differences import number
from simnet.analysis.measures import MEASURES, SHARE_OF, SHARES
from simnet.analysis.result import Result
from simnet.analysis.summary import TOTALS
from simnet.errors import Problem
from simnet.model.scenario import Expectation

PLACE_SHARES = {
    "pod_share": "pod",
    "serving_node_share": "serving_node",
    "entry_node_share": "entry_node",
}
ANALYTIC = (*PLACE_SHARES, "cross_node_share")
METRICS = tuple(dict.fromkeys([*PLACE_SHARES, *(column.name for column in MEASURES), "repeats"]))
_SIGMA = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*sigma\s*")


@dataclass(frozen=True, slots=True)
class Judgement:
    """One figure held against an expectation."""

    expectation: Expectation
    where: str  # variant, sweep point and, for a share of a place, its name
    holds: bool
    found: float
    wanted: str

    def __str__(self) -> str:
        word = "holds" if self.holds else "FAILED"
        return f"{word}: {self.expectation.metric} of {self.where}: {number(self.found)}, wanted {self.wanted}"


def check_expectations(expectations: Sequence[Expectation], variants: Sequence[str], repeats: int) -> list[Problem]:
    """Return what is wrong with the lines of `expect:` themselves, before anything runs."""
    problems = []
    for index, each in enumerate(expectations):
        for field, found, expected, fix in _mistakes(each, variants, repeats):
            name = f"expect[{index}].{field}" if field else f"expect[{index}]"
            problems.append(Problem(each.position, name, found, expected, fix))
    return problems


def _mistakes(each: Expectation, variants: Sequence[str], repeats: int) -> Iterator[tuple[str, str, str, str]]:
    from difflib import get_close_matches

    if each.metric not in METRICS:
        near = get_close_matches(each.metric, METRICS, n=1)
        fix = f"did you mean {near[0]}?" if near else "see docs/data-dictionary.md, summary"
        yield "metric", each.metric, "a column of the summary, or pod_share", fix
    if each.variant is not None and each.variant not in variants:
        near = get_close_matches(each.variant, variants, n=1, cutoff=0.4)
        yield (
            "variant",
            each.variant,
            f"one of {', '.join(variants)}",
            f"did you mean {near[0]}?" if near else "name one of them, or leave it out",
        )
    bounds = [each.equals, each.at_least, each.at_most]
    if all(bound is None for bound in bounds):
        yield "", "no bound", "equals, atLeast or atMost", "add for example `equals: analytic`"
    if isinstance(each.equals, str) and each.equals != "analytic":
        yield "equals", each.equals, "a number, or analytic", "write equals: analytic"
    elif each.equals == "analytic" and each.metric in METRICS and each.metric not in ANALYTIC:
        yield "equals", f"analytic for {each.metric}", f"a closed form: {', '.join(ANALYTIC)}", "give a number"
    elif each.equals is None and each.metric in PLACE_SHARES and any(bound is not None for bound in bounds):
        yield "equals", f"no `equals` for {each.metric}", "equals: analytic", "add equals: analytic"
    sigmas = _sigmas(each.tolerance)
    if sigmas is None and (isinstance(each.tolerance, bool) or not isinstance(each.tolerance, int | float)):
        yield "tolerance", str(each.tolerance), "a number, or <k>sigma", "for example 4sigma"
    uncertain = each.equals is not None and each.equals != "analytic" and sigmas is not None and each.metric in METRICS
    if uncertain and repeats < 2 and each.metric not in (*PLACE_SHARES, *SHARES):
        yield (
            "tolerance",
            f"{each.tolerance} with one repeat",
            "two repeats, which tell how much a run varies",
            "write run.repeat: 10, or an absolute tolerance",
        )


def judge(expectations: Sequence[Expectation], result: Result) -> list[Judgement]:
    """Hold a result against every line of `expect:`."""
    judgements: list[Judgement] = []
    for each in expectations:
        if each.metric in PLACE_SHARES:
            judgements += _judge_shares(each, result)
        else:
            judgements += _judge_summary(each, result)
    return judgements


def _sigmas(tolerance: object) -> float | None:
    matched = _SIGMA.fullmatch(tolerance) if isinstance(tolerance, str) else None
    return float(matched[1]) if matched else None


def _chosen(frame: pd.DataFrame, each: Expectation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    return [row for row in rows if each.variant is None or str(row["variant"]) == each.variant]


def _place(row: dict[str, Any], sweep: Sequence[str], name: str = "") -> str:
    parts = [str(row["variant"]), *(f"{key} {row[key]}" for key in sweep), *([name] if name else [])]
    return ", ".join(parts)


def _judge_shares(each: Expectation, result: Result) -> Iterator[Judgement]:
    for row in _chosen(result.shares(PLACE_SHARES[each.metric]), each):
        expected, found, n = float(row["expected_share"]), float(row["share"]), float(row["n"])
        yield _compared(
            each, _place(row, result.sweep, str(row["name"])), found, expected, _binomial(expected, n), "analytic "
        )


def _judge_summary(each: Expectation, result: Result) -> Iterator[Judgement]:
    measures = result.measures.assign(variant=result.measures["variant"].astype(str))
    for row in _chosen(result.summary, each):
        where, found = _place(row, result.sweep), float(row[each.metric])
        if each.at_least is not None:
            yield Judgement(each, where, found >= each.at_least, found, f"at least {number(each.at_least)}")
        if each.at_most is not None:
            yield Judgement(each, where, found <= each.at_most, found, f"at most {number(each.at_most)}")
        if each.equals is None:
            continue
        kind = ""
        if each.equals == "analytic":
            expected, kind = _cross_node(row, result), "analytic "
        else:
            expected = float(each.equals)
        if each.metric in SHARES:
            trials = float(row["flows"])
            if SHARE_OF[each.metric] == "delivered":
                trials *= float(row["delivered_share"])
            error = _binomial(expected, trials)
        else:
            at = measures["variant"] == str(row["variant"])
            for name in result.sweep:
                at &= measures[name].astype(object) == row[name]
            values = measures.loc[at, each.metric]
            error = 0.0 if each.metric in TOTALS else float(values.std(ddof=1)) / math.sqrt(len(values))
        yield _compared(each, where, found, expected, error, kind)


def _cross_node(row: dict[str, Any], result: Result) -> float:
    shares = {}
    for place in ("entry_node", "serving_node"):
        frame = result.shares(place)
        at = frame["variant"].astype(str) == str(row["variant"])
        for name in result.sweep:
            at &= frame[name].astype(object) == row[name]
        shares[place] = dict(zip(frame.loc[at, "name"].astype(str), frame.loc[at, "expected_share"], strict=True))
    same = [a * shares["serving_node"].get(node, 0.0) for node, a in shares["entry_node"].items()]
    return 1.0 - math.fsum(same)


def _binomial(p: float, n: float) -> float:
    return math.sqrt(max(p * (1 - p), 0.0) / n) if n > 0 else math.nan


def _compared(each: Expectation, where: str, found: float, expected: float, error: float, kind: str) -> Judgement:
    sigmas = _sigmas(each.tolerance)
    margin = sigmas * error if sigmas is not None else float(each.tolerance)
    # Rounding of a sum of shares is no difference.
    holds = bool(abs(found - expected) <= margin + 1e-12)
    return Judgement(each, where, holds, found, f"{kind}{number(expected)} ± {number(margin)}")
