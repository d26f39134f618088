"""What a user asks of the traffic: arrivals, clients, shape of a flow, choice of the entry; frozen, checked
when made.

A value out of range raises ValueError with the field and the range in words; `config` adds file and line.
Distributions say what a mean is the mean of: the numbers that are used, after rounding and limits
(docs/models/workload.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

MAX_PACKETS_PER_FLOW = 1_000_000
MAX_GAP_PS = 3_600_000_000_000_000  # one hour
MIN_PACKET_BYTES = 20  # an IPv4 header
MAX_PACKET_BYTES = 65_535  # the IPv4 total length field
MAX_SIGMA = 8.0
MAX_CONNECTIONS_OPEN = 10**7  # of all clients' pools
MAX_RETRIES = 100

TCP, UDP, SCTP = 6, 17, 132  # IANA protocol numbers


def _require(holds: bool, field: str, found: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{field} is {found!r}, expected {expected}")


def _is_positive(number: float) -> bool:
    return math.isfinite(number) and number > 0


# ---------------------------------------------------------------- distributions of packets per flow, bytes
# and gaps


@dataclass(frozen=True, slots=True)
class Constant:
    """Always `value`, a whole number of the quantity's own unit: packets, bytes or picoseconds."""

    value: int


@dataclass(frozen=True, slots=True)
class Uniform:
    """Each whole number from `low` to `high`, both included, equally often."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _require(self.low <= self.high, "low", self.low, f"at most high ({self.high})")


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential with the given mean."""

    mean: float

    def __post_init__(self) -> None:
        _require(_is_positive(self.mean), "mean", self.mean, "a number above 0")


@dataclass(frozen=True, slots=True)
class Lognormal:
    """The exponential of a normal variable with standard deviation `sigma`.

    `mean` is the mean of the result.
    """

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        _require(_is_positive(self.mean), "mean", self.mean, "a number above 0")
        _require(0 < self.sigma <= MAX_SIGMA, "sigma", self.sigma, f"above 0, at most {MAX_SIGMA}")


@dataclass(frozen=True, slots=True)
class Pareto:
    """Heavy tail: P(X > x) = (scale / x) ** alpha, with the scale that gives the mean; cut off at `maximum`
    if given.

    Without a maximum the mean exists only for alpha above 1, the variance only for alpha above 2.
    """

    mean: float
    alpha: float
    maximum: int | None = None

    def __post_init__(self) -> None:
        _require(_is_positive(self.mean), "mean", self.mean, "a number above 0")
        _require(0.05 <= self.alpha <= 50, "alpha", self.alpha, "from 0.05 to 50")
        if self.maximum is None:
            _require(self.alpha >= 1.01, "alpha", self.alpha, "at least 1.01 where there is no maximum")
        else:
            _require(self.mean < self.maximum, "maximum", self.maximum, f"above the mean ({self.mean})")


@dataclass(frozen=True, slots=True)
class Empirical:
    """Each of `values` as often as its weight says; weights need not sum to 1."""

    values: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _require(len(self.values) > 0, "values", self.values, "at least one value")
        _require(
            len(self.values) == len(self.weights),
            "weights",
            len(self.weights),
            f"one weight a value ({len(self.values)})",
        )
        _require(
            all(math.isfinite(weight) and weight >= 0 for weight in self.weights) and sum(self.weights) > 0,
            "weights",
            self.weights,
            "finite numbers from 0, not all of them 0",
        )


Distribution = Constant | Uniform | Exponential | Lognormal | Pareto | Empirical


# ---------------------------------------------------------------- when flows start

_RATE_RANGE_HZ = (1e-5, 1e11)


def _require_rate(rate_hz: float) -> None:
    low, high = _RATE_RANGE_HZ
    _require(low <= rate_hz <= high, "rate_hz", rate_hz, f"from {low:g} to {high:g} flows a second")


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent exponential gaps between the starts of flows."""

    rate_hz: float

    def __post_init__(self) -> None:
        _require_rate(self.rate_hz)


@dataclass(frozen=True, slots=True)
class Deterministic:
    """Flow i starts i / rate_hz seconds after the run began."""

    rate_hz: float

    def __post_init__(self) -> None:
        _require_rate(self.rate_hz)


class PeriodKind(Enum):
    """How the lengths of on and off periods are drawn."""

    EXPONENTIAL = "exponential"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class OnOff:
    """Bursts: Poisson at `rate_hz` during on periods, silence during off periods; a run begins with an on
    period.

    The long-run rate is rate_hz * on_ps / (on_ps + off_ps).
    """

    rate_hz: float
    on_ps: int  # mean length
    off_ps: int  # mean length
    kind: PeriodKind = PeriodKind.EXPONENTIAL

    def __post_init__(self) -> None:
        _require_rate(self.rate_hz)
        _require(10**6 <= self.on_ps <= 10**17, "on_ps", self.on_ps, "from 1 us to 10**17 ps")
        _require(0 <= self.off_ps <= 10**17, "off_ps", self.off_ps, "from 0 to 10**17 ps")


@dataclass(frozen=True, slots=True, eq=False)  # `==` on arrays has no single answer
class Trace:
    """Flows as they were recorded, row i is flow i.

    A column that is None is drawn from the rest of the workload.
    """

    start_ps: NDArray[np.int64]  # [n] picoseconds since the run began, non-decreasing, >= 0
    client: NDArray[np.int32] | None = None  # [n] index into the client population
    packet_count: NDArray[np.int32] | None = None  # [n] from 1 to MAX_PACKETS_PER_FLOW
    packet_size_bytes: NDArray[np.int32] | None = None  # [n] of every request packet of the flow

    def __post_init__(self) -> None:
        _require(self.start_ps.dtype == np.int64, "start_ps", self.start_ps.dtype, "int64")
        if self.start_ps.size:
            _require(bool(self.start_ps[0] >= 0), "start_ps[0]", int(self.start_ps[0]), "at least 0")
            falls = np.flatnonzero(np.diff(self.start_ps) < 0)
            row = int(falls[0]) + 1 if falls.size else 0
            _require(not falls.size, f"start_ps[{row}]", int(self.start_ps[row]), "no earlier than the row before")
            _require(bool(self.start_ps[-1] < 2**62), "start_ps", int(self.start_ps[-1]), "below 2**62 ps")
        for name, column, low, high in (
            ("client", self.client, 0, 2**31 - 1),
            ("packet_count", self.packet_count, 1, MAX_PACKETS_PER_FLOW),
            ("packet_size_bytes", self.packet_size_bytes, MIN_PACKET_BYTES, MAX_PACKET_BYTES),
        ):
            if column is None:
                continue
            _require(column.dtype == np.int32, name, column.dtype, "int32")
            _require(column.shape == self.start_ps.shape, name, column.shape, f"{self.start_ps.size} rows")
            outside = np.flatnonzero((column < low) | (column > high))
            row = int(outside[0]) if outside.size else 0
            _require(not outside.size, f"{name}[{row}]", outside.size and int(column[row]), f"{low} to {high}")


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Each client keeps connections open and sends requests on them; when one has had enough, the next follows it.

    A flow is a connection, its packets are the requests, `FlowShape.gap_ps` apart; of a connection's last and the next
    one's first too. `FlowShape.packet_count` has no say.
    """

    connections_per_client: int
    until_ps: int  # no request is sent at this time or later
    requests_per_connection: int = MAX_PACKETS_PER_FLOW  # then a new one
    max_age_ps: int | None = None  # a request that would come so long after the first opens a new one

    def __post_init__(self) -> None:
        _require(self.connections_per_client >= 1, "connections", self.connections_per_client, "at least 1")
        _require(0 < self.until_ps <= 2**61, "until_ps", self.until_ps, "above 0, at most 2**61 ps")
        _require(
            1 <= self.requests_per_connection <= MAX_PACKETS_PER_FLOW,
            "perConnection",
            self.requests_per_connection,
            f"from 1 to {MAX_PACKETS_PER_FLOW:,} requests",
        )
        _require(
            self.max_age_ps is None or 0 < self.max_age_ps <= 2**61,
            "maxConnectionAge",
            self.max_age_ps,
            "above 0, at most 2**61 ps",
        )


@dataclass(frozen=True, slots=True)
class ClosedLoop(KeepAlive):
    """Clients that keep connections open and wait: each connection has one request under way at most.

    The next request follows the answer after the think time, `FlowShape.gap_ps`. A client that has waited for
    `timeout_ps` gives the connection up and tries again on a new one, `retries` times at most, a back-off later each;
    then it thinks and goes on. What it no longer waits for still loads the network.
    """

    timeout_ps: int | None = None  # None: it waits for ever
    retries: int = 0
    backoff_ps: Distribution = Constant(25 * 10**9)  # before each retry; Envoy's base interval, 25 ms

    def __post_init__(self) -> None:
        # super() without arguments does not know a class whose slots were made after it.
        KeepAlive.__post_init__(self)
        _require(
            self.timeout_ps is None or 0 < self.timeout_ps <= 2**61,
            "timeout",
            self.timeout_ps,
            "above 0, at most 2**61 ps",
        )
        _require(0 <= self.retries <= MAX_RETRIES, "retries", self.retries, f"from 0 to {MAX_RETRIES}")


Arrivals = Poisson | Deterministic | OnOff | Trace | KeepAlive


# ---------------------------------------------------------------- who calls


class ClientOrigin(Enum):
    """Where clients live."""

    OUTSIDE = "outside"  # beyond the fabric's upstream switch
    PODS = "pods"  # pods of the cluster
    NODES = "nodes"  # host processes of cluster nodes


@dataclass(frozen=True, slots=True)
class Zipf:
    """Client k (from 0) starts flows in proportion to 1 / (k + 1) ** exponent; 0 makes all alike."""

    exponent: float

    def __post_init__(self) -> None:
        _require(0 <= self.exponent <= 20, "skew exponent", self.exponent, "from 0 to 20")


@dataclass(frozen=True, slots=True)
class ClientPopulation:
    """The clients: dense indexes 0 to count - 1, the busiest first; the engine gives index i its address."""

    count: int
    origin: ClientOrigin = ClientOrigin.OUTSIDE
    addresses: tuple[str, ...] = ()  # outside: addresses or prefixes, filled in order; pods and nodes: their names
    skew: Zipf | None = None  # None: every client equally often

    def __post_init__(self) -> None:
        _require(1 <= self.count <= 10**7, "count", self.count, "from 1 to 10,000,000 clients")


# ---------------------------------------------------------------- what a flow looks like, and where it enters


@dataclass(frozen=True, slots=True)
class FlowShape:
    """The packets of a flow; each request packet is answered by one reply packet, or by none."""

    packet_count: Distribution  # packets a flow, from 1 to MAX_PACKETS_PER_FLOW
    packet_size_bytes: Distribution  # IP packet, header included
    gap_ps: Distribution  # between the sending of two packets of a flow, from 0 to MAX_GAP_PS
    reply_size_bytes: Distribution | None = None  # None: no replies


@dataclass(frozen=True, slots=True)
class PodService:
    """How long a pod works on a request, on how many at once, and how many may wait."""

    time_ps: Distribution  # from 0 to MAX_GAP_PS
    workers: int = 1
    queue_limit: int | None = None  # requests that may wait; None: any number

    def __post_init__(self) -> None:
        _require(self.workers >= 1, "workers", self.workers, "at least 1")
        _require(self.queue_limit is None or self.queue_limit >= 0, "queueLimit", self.queue_limit, "0 or more")


class EntryChoiceKind(Enum):
    """How a client chooses among the addresses at which a service can be entered."""

    RANDOM = "random"  # anew for each flow
    ROUND_ROBIN = "round-robin"  # flow i takes target i mod n, over all clients
    PER_CLIENT = "per-client"  # each client keeps one, chosen at random
    FIXED = "fixed"  # all take the one that is named


@dataclass(frozen=True, slots=True)
class EntryChoice:
    """NodePort: which node; ExternalIP and LoadBalancer: which of the advertised addresses."""

    kind: EntryChoiceKind = EntryChoiceKind.RANDOM
    fixed: str | None = None  # FIXED: name of the node, or the address

    def __post_init__(self) -> None:
        is_fixed = self.kind is EntryChoiceKind.FIXED
        _require(is_fixed == (self.fixed is not None), "fixed", self.fixed, "a name with kind fixed, and only then")


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything that decides which packets exist. Equal in all variants of an experiment."""

    arrivals: Arrivals
    clients: ClientPopulation
    shape: FlowShape
    protocol: int = TCP  # IANA number
    service: PodService | None = None  # None: pods answer at once

    def __post_init__(self) -> None:
        _require(self.protocol in (TCP, UDP, SCTP), "protocol", self.protocol, "6 (TCP), 17 (UDP) or 132 (SCTP)")
        if isinstance(self.arrivals, Trace) and self.arrivals.client is not None and self.arrivals.client.size:
            highest = int(self.arrivals.client.max())
            _require(highest < self.clients.count, "client", highest, f"below the count ({self.clients.count})")
        if isinstance(self.arrivals, KeepAlive):
            slots = self.clients.count * self.arrivals.connections_per_client
            _require(slots <= MAX_CONNECTIONS_OPEN, "connections", slots, f"at most {MAX_CONNECTIONS_OPEN:,} in all")
            _require(self.clients.skew is None, "skew", self.clients.skew, "none: clients with pools are all alike")
        if isinstance(self.arrivals, ClosedLoop):
            _require(self.protocol != UDP, "protocol", "udp", "tcp or sctp: clients that wait keep connections")
            _require(self.shape.reply_size_bytes is not None, "replySize", None, "a size: clients wait for the reply")
