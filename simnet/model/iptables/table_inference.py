"""Which table rules are of that stand under no `*TABLE` line: told by their targets and chains.

Source: the chains and targets that each table has, iptables(8) and iptables-extensions(8); kube-proxy's chain names.
"""

from __future__ import annotations

import itertools
import re

from simnet.model.iptables.parser_errors import RuleError

_NAT = re.compile(
    r"-j (?:DNAT|SNAT|MASQUERADE|REDIRECT|NETMAP)\b|KUBE-(?:SEP|SVC|SVL|EXT|XLB|FW|MARK-MASQ)\b|CNI-HOSTPORT-"
)
_FILTER = re.compile(
    r"-j REJECT\b|-[AIP] FORWARD\b|^:FORWARD\b|KUBE-(?:FORWARD|FIREWALL|EXTERNAL-SERVICES)\b", re.MULTILINE
)
_HOOK_CHAIN = re.compile(r"^[ \t]*(?:-[AIP] |:)(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)\b", re.MULTILINE)


def infer_table(lines: list[str], number: int) -> tuple[str, str]:
    """Tell the table of rules that stand under no `*TABLE` line, and why. Raises RuleError where two tables are mixed."""  # noqa: E501
    stretch: list[str] = []
    for line in itertools.islice(lines, number - 1, None):
        if line.lstrip().startswith(("*", "COMMIT")):
            break
        stretch.append(line)
    part = "\n".join(stretch)
    nat, filter_ = _NAT.search(part), _FILTER.search(part)
    hooks = {found[1] for found in _HOOK_CHAIN.finditer(part)}
    if nat and filter_ and re.search(r"-j (?:DNAT|SNAT|MASQUERADE|REDIRECT)\b", part):
        raise RuleError(
            "table",
            f"rules of table nat ({nat[0]}) and of table filter ({filter_[0]}) without a table line",
            "a line such as *nat before the rules of each table",
            "save with `iptables-save`, not `iptables -S`, or add the lines *nat and *filter",
        )
    if nat and not filter_:
        return "nat", f"only nat has {nat[0]}"
    if "FORWARD" in hooks and hooks & {"PREROUTING", "POSTROUTING"}:
        return "mangle", "only mangle has both FORWARD and PREROUTING or POSTROUTING"
    if filter_:
        return "filter", f"of {filter_[0]}"
    if hooks & {"PREROUTING", "POSTROUTING"}:
        return "nat", "of " + ", ".join(sorted(hooks))
    return "filter", "that is iptables' default"
