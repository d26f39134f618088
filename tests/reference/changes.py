"""Which table is in force when, by going through a history one change after the other. Slow, and plain."""

from simnet.model.iptables import ruleset as rs

NEVER = float("inf")


class Timetable:
    """A TableHistory, asked for single instants; a change comes before a packet of the same instant."""

    def __init__(self, history, host, rule_changes, rulesets):
        self.history, self.host, self.rulesets = history, host, rulesets
        self.rule_changes = rule_changes  # (time, node, family, number of the rule set)

    def fibs(self, now_ps):
        return self.history.fibs_at(now_ps)

    def works(self, device, now_ps):
        return self._last(self.history.devices, "device", device, "works", now_ps)

    def carries(self, link, now_ps):
        return self._last(self.history.links, "link", link, "carries", now_ps)

    def runs(self, pod, now_ps):
        return self._last(self.history.pods, "pod", pod, "runs", now_ps)

    def pod_ends(self, pod, now_ps):
        """When a pod that runs now ends."""
        return next((c.time_ps for c in self.history.pods if c.pod == pod and c.time_ps > now_ps and not c.runs), NEVER)

    def _last(self, changes, name, thing, value, now_ps):
        state = True
        for change in changes:
            if getattr(change, name) == thing and change.time_ps <= now_ps:
                state = getattr(change, value)
        return state

    def works_since(self, device, now_ps):
        """When it was last switched on or off: nothing that it held before is there."""
        state, since = True, -1
        for change in self.history.devices:
            if change.device == device and change.time_ps <= now_ps and change.works != state:
                state, since = change.works, change.time_ps
        return since

    def host_at(self, node, family, now_ps):
        number = self.host.get((node, family))
        for time_ps, name, which, new in self.rule_changes:
            if (name, which) == (node, family) and time_ps <= now_ps:
                number = new
        return number

    def next_tables(self, node, family, now_ps):
        """When the node next gets another FIB or other rules."""
        times = [change.time_ps for change in self.history.fibs if change.device == node and change.time_ps > now_ps]
        now = self.host_at(node, family, now_ps)
        times += [
            time_ps
            for time_ps, name, which, _ in self.rule_changes
            if (name, which) == (node, family) and time_ps > now_ps and self.host_at(node, family, time_ps) != now
        ]
        return min(times, default=NEVER)

    def target_gone(self, node, family, target, now_ps):
        """When the node's rules next stop naming (or begin to name) an endpoint."""
        now = self._names(node, family, target, now_ps)
        later = sorted({time_ps for time_ps, name, _, _ in self.rule_changes if name == node and time_ps > now_ps})
        return next((at for at in later if self._names(node, family, target, at) != now), NEVER)

    def _names(self, node, family, target, now_ps):
        number = self.host_at(node, family, now_ps)
        if number is None:
            return False
        changes = [change for change in self.history.rules if change.node == node and change.time_ps <= now_ps]
        if changes and target in changes[-1].kept:
            return True
        return any(
            isinstance(rule.target, rs.Dnat)
            and rule.target.ports
            and (rule.target.address, rule.target.ports[0]) == target
            for table in self.rulesets[number].tables.values()
            for chain in table.chains.values()
            for rule in chain.rules
        )
