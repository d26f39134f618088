"""Why a rule stopped a packet, in the words of the results, told by the rule's comment and its chain."""

from __future__ import annotations

from simnet.model.iptables.ruleset import ConntrackStateMatch, Reject, Rule


def stop_reason(chain: str, rule: Rule | None) -> str:
    """Return one of `simnet.model.recording.REASONS`; `rule` None is the chain's policy."""
    comment = (rule.comment if rule else None) or ""
    if comment.endswith("has no local endpoints"):
        return "no local endpoint"
    if comment.endswith("has no endpoints"):
        return "no endpoints"
    if chain == "KUBE-PROXY-FIREWALL":
        return "source range"
    matches = rule.matches if rule else ()
    if any(isinstance(match, ConntrackStateMatch) and match.states == ("INVALID",) for match in matches):
        return "invalid state"
    return "filter reject" if rule is not None and isinstance(rule.target, Reject) else "filter drop"
