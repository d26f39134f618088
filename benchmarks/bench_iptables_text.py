"""How long a large `iptables-save` takes to parse and print: kube-proxy-like rules of many Services.

    python benchmarks/bench_iptables_text.py [SERVICES] [ENDPOINTS]

The text is made here (10,000 Services of 10 endpoints by default, about 50 MB); one core; memory is the process's peak.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator

from simnet.model.iptables.parser import parse_save
from simnet.model.iptables.printer import save_text


def kube_proxy_like_save(services: int, endpoints: int) -> str:
    """Return the text of table nat as iptables-save prints it for so many Services of so many endpoints."""
    names = [f"namespace-{service % 50}/application-service-{service}:http" for service in range(services)]
    chains = [f"KUBE-SVC-{_hash(service)}" for service in range(services)]
    lines = ["*nat", ":PREROUTING ACCEPT [0:0]", ":INPUT ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]",
             ":POSTROUTING ACCEPT [0:0]", ":KUBE-MARK-MASQ - [0:0]", ":KUBE-SERVICES - [0:0]"]  # fmt: skip
    separate = [f"KUBE-SEP-{_hash(services + place)}" for place in range(services * endpoints)]
    lines += [f":{chain} - [0:0]" for chain in (*separate, *chains)]
    lines.append('-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES')
    lines.append("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000")
    for service in range(services):
        for place in range(endpoints):
            lines += _endpoint_rules(names[service], separate[service * endpoints + place], service * endpoints + place)
    for service in range(services):
        address = f"10.96.{service // 250}.{service % 250 + 1}"
        lines.append(f'-A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment "{names[service]} cluster IP"'
                     f" -m tcp --dport 80 -j {chains[service]}")  # fmt: skip
    for service in range(services):
        held = separate[service * endpoints : (service + 1) * endpoints]
        lines += _service_rules(names[service], service, chains[service], held, endpoints)
    return "\n".join([*lines, "COMMIT", ""])


def _endpoint_rules(name: str, chain: str, place: int) -> Iterator[str]:
    address = _pod(place)
    yield f'-A {chain} -s {address}/32 -m comment --comment "{name}" -j KUBE-MARK-MASQ'
    yield f'-A {chain} -p tcp -m comment --comment "{name}" -m tcp -j DNAT --to-destination {address}:8080'


def _service_rules(name: str, service: int, chain: str, held: list[str], endpoints: int) -> Iterator[str]:
    address = f"10.96.{service // 250}.{service % 250 + 1}"
    yield (f"-A {chain} ! -s 10.128.0.0/9 -d {address}/32 -p tcp -m comment --comment \"{name} cluster IP\""
           " -m tcp --dport 80 -j KUBE-MARK-MASQ")  # fmt: skip
    for place, separate in enumerate(held):
        left = endpoints - place
        statistic = f" -m statistic --mode random --probability {round(2**31 / left) / 2**31:.11f}" if left > 1 else ""
        pod = _pod(service * endpoints + place)
        yield f'-A {chain} -m comment --comment "{name} -> {pod}:8080"{statistic} -j {separate}'


def _pod(place: int) -> str:
    return f"10.{128 + place // 62500}.{place // 250 % 250}.{place % 250 + 1}"


def _hash(number: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    value = (number + 1) * 0x9E3779B97F4A7C15D1B54A32D192ED03 % 2**80
    return "".join(letters[value >> shift & 31] for shift in range(0, 80, 5))


def main() -> None:
    """Print the times as one JSON object."""
    services = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    endpoints = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    text = kube_proxy_like_save(services, endpoints)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    parsed = parse_save(text, file="bench")
    parsed_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    printed = save_text(parsed.ruleset)
    printed_s = time.perf_counter() - start
    rules = sum(len(chain.rules) for chain in parsed.ruleset.tables["nat"].chains.values())
    print(
        json.dumps(
            {
                "text_mb": round(len(text) / 1e6, 1),
                "rules": rules,
                "parse_s": round(parsed_s, 2),
                "print_s": round(printed_s, 2),
                "mb_per_s": round(len(text) / 1e6 / parsed_s, 2),
                "peak_mb_before": before // 1024,
                "peak_mb_after": after // 1024,
                "same_lines": sorted(printed.split("\n")) == sorted(text.split("\n")),
            }
        )
    )


if __name__ == "__main__":
    main()
