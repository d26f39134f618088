"""Clients that wait for answers, in plain SimPy: a process for each connection that a client keeps."""

from __future__ import annotations

from collections import Counter

from reference import queues
from reference import workload as one_by_one

LAST = 2**60  # rank of what happens after all packets of an instant


class ClosedLoop:
    """The clients of a simulation; `calls` are the rows of the table of that name."""

    def __init__(self, simulation, generator, choice, fixed_target):
        self.simulation, self.generator, self.choice, self.fixed_target = simulation, generator, choice, fixed_target
        self.loop, self.seed = generator.workload.arrivals, simulation.seed
        self.slots = generator.workload.clients.count * self.loop.connections_per_client
        self.calls, self.counts = [], Counter()
        for slot in range(self.slots):
            simulation.env.process(self.keep_calling(slot))

    def wait_ps(self, law, purpose, slot, number):
        return max(1, round(one_by_one.value_of(law, one_by_one.open_uniform(self.seed, purpose, slot, number))))

    def keep_calling(self, slot):
        env, loop, generator = self.simulation.env, self.loop, self.generator
        mean_ps = one_by_one.mean_gap(generator.gap)
        next_ps = int(one_by_one.uniform(self.seed, "workload/first-request", slot) * mean_ps)
        flow, opened, sent, request, tries, call = None, 0, 0, 0, 0, None
        while next_ps < loop.until_ps:
            rank = sent * self.slots + slot
            yield queues.At(env, next_ps, rank)
            if tries == 0:
                call = {"slot": slot, "call": request, "start_ps": env.now, "outcome": "unfinished"}
                self.calls.append(call)
            if (
                flow is None
                or len(flow.requests) == loop.requests_per_connection
                or (loop.max_age_ps is not None and env.now - flow.made.start_ps >= loop.max_age_ps)
            ):
                flow = self.open(slot, opened)
                opened += 1
            packet, ended = self.send(flow, slot, request, rank)
            sent, tries = sent + 1, tries + 1
            call |= {"tries": tries, "flow": flow}
            waits = ended if loop.timeout_ps is None else ended | queues.At(env, env.now + loop.timeout_ps, LAST)
            yield waits
            heard = answered = refused = False
            if ended.triggered:
                answered = packet.answer is not None and packet.answer.verdict == "delivered"
                refused = packet.verdict == "rejected"
                heard = answered or refused
                if not heard and loop.timeout_ps is None:
                    return
                if not heard:
                    yield queues.At(env, packet.sent_ps + loop.timeout_ps, LAST)
            if not heard:
                self.counts["tries timed out"] += 1
            if not answered:
                flow = None
            if answered or tries > loop.retries:
                call |= {
                    "outcome": "answered" if answered else "refused" if refused else "timed out", "end_ps": env.now
                }  # fmt: skip
                request, tries = request + 1, 0
                next_ps = env.now + self.wait_ps(generator.gap, "workload/gap", slot, request)
            else:
                number = request * 128 + tries
                next_ps = env.now + self.wait_ps(generator.backoff, "workload/backoff", slot, number)

    def open(self, slot, ordinal):
        """Open the slot's connection of this ordinal."""
        simulation = self.simulation
        number, kept = ordinal * self.slots + slot, self.loop.connections_per_client
        client = slot // kept
        start = one_by_one.bits(self.seed, "workload/first-port", client) % 28232
        port = 32768 + (start + ordinal * kept + slot % kept) % 28232
        target = one_by_one.target_of(
            self.choice, number, client, self.seed, len(simulation.targets), self.fixed_target
        )
        made = one_by_one.Flow(number, simulation.env.now, client, port, target, 0, 0)
        return simulation.begin(made, self.generator.workload.protocol)

    def send(self, flow, slot, request, rank):
        """Send a request on a connection; return it and the event that it, or its answer, has ended."""
        number = len(flow.requests)
        size_bytes, reply_bytes = (
            one_by_one.whole_number(law, self.seed, f"workload/{which}-size", slot, request)
            for law, which in ((self.generator.packet_size, "packet"), (self.generator.reply_size, "reply"))
        )
        return self.simulation.send(flow, number, size_bytes, reply_bytes, rank, work=(slot, request))

    def settle(self, flows):
        """Number the flows in order of start, and return the counts of calls."""
        flows.sort(key=lambda each: (each.made.start_ps, each.made.flow_id % self.slots))
        for number, flow in enumerate(flows):
            flow.made.flow_id = number
        outcomes = Counter(f"calls {call['outcome']}" for call in self.calls)
        retries = sum(call["tries"] - 1 for call in self.calls)
        late = sum(
            packet.answer is not None and packet.answer.verdict == "delivered"
            and packet.answer.ended_ps - packet.sent_ps > (self.loop.timeout_ps or LAST)
            for flow in flows for packet in flow.requests
        )  # fmt: skip
        return self.counts + outcomes + Counter({"calls": len(self.calls), "retries": retries, "answered late": late})

    def call_rows(self):
        """The rows of the table calls."""
        kept = self.loop.connections_per_client
        for call in sorted(self.calls, key=lambda each: (each["start_ps"], each["slot"])):
            answered = call["outcome"] == "answered"
            yield {
                "client": self.simulation.callers[call["slot"] // kept][0], "connection": call["slot"] % kept,
                "call": call["call"], "start_ps": call["start_ps"], "end_ps": call.get("end_ps", -1),
                "latency_ps": call["end_ps"] - call["start_ps"] if answered else -1, "tries": call["tries"],
                "outcome": call["outcome"], "flow_id": call["flow"].made.flow_id,
                "warmup": call["start_ps"] < self.simulation.scenario.run.warmup_ps,
            }  # fmt: skip
