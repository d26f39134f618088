"""What each event did, packet by packet and change by change, from the event-by-event simulation. Slow, and plain.

The rules are those of docs/models/events.md. Shared with the engine are only the events and the history of tables.
"""

import itertools
from collections import Counter

NONE = -1
FOREVER = float("inf")
RESET = "connection reset"
RESTART_PS = 50 * 10**9  # a daemon that is started again at once


def entries_over_time(history, rules):
    """[(time, event, (box, prefix), before, after)]: routes, and rules under the prefix None, in order of time."""
    found = []
    fibs = {box: {route.prefix: route for route in fib.routes} for box, fib in history.start.items()}
    for change in history.fibs:
        before, after = fibs[change.device], {route.prefix: route for route in change.fib.routes}
        for prefix in {**before, **after}:
            if before.get(prefix) != after.get(prefix):
                key = (change.device, prefix)
                found.append((change.time_ps, change.event, key, before.get(prefix), after.get(prefix)))
        fibs[change.device] = after
    rules = dict(rules)
    for change in history.rules:
        if rules.get(change.node) != change.rulesets:
            key = (change.node, None)
            found.append((change.time_ps, change.event, key, rules.get(change.node), change.rulesets))
        rules[change.node] = change.rulesets
    return sorted(found, key=lambda each: each[0])


class BlastRadius:
    """Everything about the events of one run. `simulation` has run."""

    def __init__(self, simulation, history, rules, duration_ps, has_replies):
        self.history, self.events, self.has_replies = history, history.events, has_replies
        self.rows = [self.tables_of(n, entries_over_time(history, rules), duration_ps) for n in range(len(self.events))]
        self.effects = Counter()  # (event, effect, verdict, reason) -> how many
        self.losses_ps = {}  # event -> [instants]
        self.all_losses = Counter()  # (effect, reason, instant) -> how many
        for flow in simulation.flows:
            self.account(flow)

    def tables_of(self, number, entries, duration_ps):
        event = self.events[number]
        mine = [entry for entry in entries if entry[1] == number]
        end = event.until_ps
        if end is None and event.kind.value == "bgp restarts":
            end = event.at_ps + RESTART_PS
        before_end = [entry[0] for entry in mine if end is None or entry[0] < end]
        keys = {entry[2] for entry in mine}
        left = 0
        for key in keys:
            of_key = [entry for entry in mine if entry[2] == key]
            left += of_key[0][3] != of_key[-1][4]
        repaired = None
        if end is not None and end <= duration_ps and not left:
            repaired = max([end] + [entry[0] for entry in mine])
        return {
            "event": number, "name": event.label, "kind": event.kind.value, "target": " ".join(event.subject),
            "at_random": event.at_random, "start_ps": event.at_ps, "end_ps": -1 if end is None else end,
            "time_to_notice_ps": min(entry[0] for entry in mine) - event.at_ps if mine else -1,
            "time_to_withdraw_ps": max(before_end) - event.at_ps if before_end else -1,
            "time_to_repair_ps": -1 if repaired is None else repaired - end,
            "window_end_ps": -1 if repaired is None else repaired,
            "boxes_changed": len({box for box, _ in keys}),
            "routes_changed": len([1 for _, prefix in keys if prefix is not None]),
            "rules_changed": len([1 for _, prefix in keys if prefix is None]),
            "not_restored": left,
        }  # fmt: skip

    # --- whose is it?

    def covering(self, time_ps):
        """The latest begun event whose window covers an instant."""
        owner = NONE
        for number, row in enumerate(self.rows):
            end = FOREVER if row["window_end_ps"] == -1 else row["window_end_ps"]
            if row["start_ps"] <= time_ps < end:
                owner = number
        return owner

    def owner_of_loss(self, exchange):
        _, ended_ps, sent_ps, _, reason = exchange[:5]
        if self.covering(ended_ps) != NONE:
            return self.covering(ended_ps)
        if self.covering(sent_ps) != NONE:
            return self.covering(sent_ps)
        begun = [number for number, event in enumerate(self.events) if event.at_ps <= ended_ps]
        return begun[-1] if reason == RESET and begun else NONE

    def owner_of_move(self, after_ps, until_ps):
        history = self.history
        changes = [*history.fibs, *history.rules, *history.links, *history.devices, *history.pods]
        inside = [(each.time_ps, each.event) for each in changes if after_ps < each.time_ps <= until_ps]
        return max(inside)[1] if inside else NONE

    # --- flow by flow

    def account(self, flow):
        replies = {reply.number: reply for reply in flow.replies}
        exchanges = []  # (is whole, ended, sent, verdict, reason, of what, pod, wires), packet by packet
        for packet in sorted(flow.requests, key=lambda each: each.number):
            reply = replies.get(packet.number) if packet.verdict == "delivered" else None
            last, what = (packet, "packets") if reply is None else (reply, "answers")
            wires = [wire for wire, _ in packet.wires], [wire for wire, _ in reply.wires] if reply else []
            whole = packet.verdict == "delivered" and (not self.has_replies or reply.verdict == "delivered")
            exchanges.append(
                (whole, last.ended_ps, packet.sent_ps, last.verdict, last.reason, what, packet.place, wires)
            )
        self.count_losses(exchanges)
        done = set()  # a flow counts once per event and effect
        for effect, owner, verdict, reason in [*self.runs(exchanges), *self.moves(exchanges)]:
            if (effect, owner) not in done:
                done.add((effect, owner))
                self.effects[owner, effect, verdict, reason] += 1

    def count_losses(self, exchanges):
        owner_of_reset = None
        for exchange in exchanges:
            whole, ended_ps, _, verdict, reason, what, _, _ = exchange
            if whole:
                continue
            self.all_losses[what, reason, ended_ps] += 1
            if reason != RESET or owner_of_reset is None:
                owner = self.owner_of_loss(exchange)
                self.losses_ps.setdefault(owner, []).append(ended_ps)
            if reason == RESET:
                owner_of_reset = owner if owner_of_reset is None else owner_of_reset
                owner = owner_of_reset
            self.effects[owner, what, verdict, reason] += 1

    def runs(self, exchanges):
        """Where answers stop: (what becomes of the flow, whose it is, the first loss's verdict and reason)."""
        for number, exchange in enumerate(exchanges):
            if exchange[0] or (number and not exchanges[number - 1][0]):
                continue
            if any(later[0] for later in exchanges[number:]):
                effect = "flows interrupted"
            else:
                effect = "flows broken" if number else "flows failed"
            yield effect, self.owner_of_loss(exchange), exchange[3], exchange[4]

    def moves(self, exchanges):
        whole = [exchange for exchange in exchanges if exchange[0]]
        for before, after in itertools.pairwise(whole):
            if before[6:] != after[6:]:
                what = "another pod" if before[6] != after[6] else "another way"
                yield f"flows moved to {what}", self.owner_of_move(before[2], after[1]), "", ""

    def event_rows(self):
        """The rows of the events table."""
        for number, row in enumerate(self.rows):

            def total(effect, verdict=None, number=number):
                return sum(
                    count
                    for (owner, what, how, _), count in self.effects.items()
                    if (owner, what) == (number, effect) and verdict in (None, how)
                )

            losses_ps = self.losses_ps.get(number, [])
            yield {
                **row,
                "first_loss_ps": min(losses_ps, default=-1), "last_loss_ps": max(losses_ps, default=-1),
                **{f"packets_{how}": total("packets", how) for how in ("dropped", "rejected", "lost")},
                "answers_lost": total("answers"), "flows_failed": total("flows failed"),
                "flows_broken": total("flows broken"), "flows_interrupted": total("flows interrupted"),
                "flows_moved_pod": total("flows moved to another pod"),
                "flows_moved_way": total("flows moved to another way"),
            }  # fmt: skip
