"""A trace as people read it: a few lines a box, in a terminal and in a notebook."""

from __future__ import annotations

import html

from simnet.engine.packet_walk import TraceStep
from simnet.engine.trace import Trace, TraceOutcome


def trace_text(trace: Trace) -> str:
    """Return the trace as lines of text."""
    asked = f"{trace.source} -> {trace.destination} {trace.protocol}"
    asked += f", the rules of {trace.node} alone" if trace.node else ""
    if not trace.all:
        asked += f", one branch (seed {trace.seed}; --all tells every one)"
    lines = [asked]
    for number, outcome in enumerate(trace.outcomes, 1):
        lines += ["", _headline(number, len(trace.outcomes), outcome)]
        box = ("", "")
        for step in outcome.steps:
            if step.direction != box[0]:
                lines.append(f"  {step.direction}")
                box = (step.direction, "")
            if step.box != box[1]:
                lines.append(f"    {step.box}")
                box = (step.direction, step.box)
            lines.append(f"      {step_text(step)}")
    return "\n".join(lines)


def trace_html(trace: Trace) -> str:
    """Return the trace as a notebook shows it: one folding block an outcome."""
    head = html.escape(f"{trace.source} → {trace.destination} {trace.protocol}")
    parts = [f"<p><b>{head}</b></p>"]
    for number, outcome in enumerate(trace.outcomes, 1):
        rows = "".join(
            f"<tr><td>{html.escape(step.direction)}</td><td>{html.escape(step.box)}</td>"
            f"<td><code>{html.escape(step_text(step))}</code></td></tr>"
            for step in outcome.steps
        )
        is_open = " open" if len(trace.outcomes) == 1 else ""
        title = html.escape(_headline(number, len(trace.outcomes), outcome))
        parts.append(f"<details{is_open}><summary>{title}</summary><table>{rows}</table></details>")
    return "".join(parts)


def _headline(number: int, count: int, outcome: TraceOutcome) -> str:
    told = f"{number} of {count}: " if count > 1 else ""
    told += f"probability {float(outcome.probability):.6g}: {outcome.verdict}"
    if outcome.reason:
        told += f" ({outcome.reason})"
    if outcome.endpoint:
        told += f" to {outcome.endpoint}"
    if outcome.pod:
        told += f", pod {outcome.pod}"
    if outcome.node:
        told += f" on {outcome.node}"
    if outcome.source_seen:
        told += f", source seen {outcome.source_seen}" + (" (masqueraded)" if outcome.masquerade else "")
    elif outcome.masquerade:
        told += ", masqueraded"
    if outcome.verdict == "delivered":
        told += f", {outcome.hops.l3} hops, {outcome.hops.links} links, ttl {outcome.ttl}"
        if outcome.reply_hops:
            told += f"; reply {outcome.reply_hops.l3} hops, {outcome.reply_hops.links} links"
        else:
            told += f"; no answer ({outcome.reply_reason})"
    return told


def step_text(step: TraceStep) -> str:
    """Return one step as a line."""
    match step.action:
        case "rule":
            told = f"{step.hook:<11} {step.table} {step.chain} {step.number}: {step.rule}"
            if step.probability is not None:
                told += f"   [chance {step.probability:.6g}"
                told += f", drew {step.draw}]" if step.draw is not None else "]"
            return told
        case "rewrite":
            return f"{step.hook:<11} {step.before}  =>  {step.after}"
        case "conntrack":
            return f"{'conntrack':<11} {step.before}  =>  {step.after}"
        case "route":
            told = f"{'route':<11} {step.route}"
            if step.probability is not None:
                told += f"   [1 of {round(1 / step.probability)} next hops, chance {step.probability:.6g}]"
            return told + (f", ttl {step.ttl}" if step.ttl is not None else "")
        case "wrap":
            return f"{'tunnel':<11} {step.interface}: {step.after}"
        case "unwrap":
            return f"{'tunnel':<11} {step.interface}: taken out, ttl {step.ttl}"
        case "stop":
            return f"{'stopped':<11} {step.reason}, {step.after}, ttl {step.ttl}"
    return f"{step.action:<11} {step.after}, ttl {step.ttl}"
