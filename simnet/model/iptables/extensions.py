"""What iptables' own tables say: protocol and service names, REJECT types, and the options of matches and targets.

The parser and the printer share them, so that what one reads the other writes. `MODELLED` modules become values of
`ruleset`; those of `KNOWN_MATCHES` and `KNOWN_TARGETS` beyond that are kept as tokens (`OpaqueMatch`, `OpaqueTarget`).
Left out: modules that are in neither are kept too, but their options are not checked.
Source: iptables-extensions(8) 1.8.9; orders and spellings as iptables-save 1.8.9 printed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simnet.model.iptables.ruleset import Family

PROTOCOL_NUMBERS: Mapping[str, int] = {
    "all": 0, "ip": 0, "icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "egp": 8, "igp": 9, "udp": 17, "dccp": 33,
    "ipv6": 41, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "ospf": 89, "ipip": 94,
    "pim": 103, "vrrp": 112, "l2tp": 115, "sctp": 132, "udplite": 136,
}  # fmt: skip
PROTOCOL_NAMES: Mapping[int, str] = {
    number: name for name, number in reversed(list(PROTOCOL_NUMBERS.items())) if name != "icmpv6"
}
SERVICE_PORTS: Mapping[str, int] = {  # IANA's names that `iptables -L` without -n shows in place of numbers
    "tcpmux": 1, "echo": 7, "discard": 9, "ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37,
    "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "http": 80, "www": 80, "kerberos": 88, "pop3": 110,
    "sunrpc": 111, "ntp": 123, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139, "imap2": 143, "snmp": 161,
    "snmp-trap": 162, "bgp": 179, "ldap": 389, "https": 443, "microsoft-ds": 445, "isakmp": 500, "syslog": 514,
    "submission": 587, "ldaps": 636, "domain-s": 853, "rsync": 873, "imaps": 993, "pop3s": 995, "openvpn": 1194,
    "ms-sql-s": 1433, "nfs": 2049, "etcd-client": 2379, "etcd-server": 2380, "mysql": 3306, "ms-wbt-server": 3389,
    "ipsec-nat-t": 4500, "sip": 5060, "mdns": 5353, "postgresql": 5432, "amqp": 5672, "redis": 6379, "http-alt": 8080,
}  # fmt: skip
SERVICE_NAMES: Mapping[int, str] = {port: name for name, port in reversed(list(SERVICE_PORTS.items())) if name != "www"}

_REJECT_IPV4 = {
    "icmp-net-unreachable": "net-unreach", "icmp-host-unreachable": "host-unreach",
    "icmp-proto-unreachable": "proto-unreach", "icmp-port-unreachable": "port-unreach",
    "icmp-net-prohibited": "net-prohib", "icmp-host-prohibited": "host-prohib", "tcp-reset": "tcp-rst",
    "icmp-admin-prohibited": "admin-prohib",
}  # fmt: skip
_REJECT_IPV6 = {
    "icmp6-no-route": "no-route", "icmp6-adm-prohibited": "adm-prohibited", "icmp6-addr-unreachable": "addr-unreach",
    "icmp6-port-unreachable": "port-unreach", "tcp-reset": "tcp-reset", "icmp6-policy-fail": "policy-fail",
    "icmp6-reject-route": "reject-route",
}  # fmt: skip
REJECT_TYPES: Mapping[Family, Mapping[str, str]] = {  # every accepted word -> the word that iptables-save prints
    family: {word: name for name, alias in names.items() for word in (name, alias)}
    for family, names in ((Family.IPV4, _REJECT_IPV4), (Family.IPV6, _REJECT_IPV6))
}
DEFAULT_REJECT: Mapping[Family, str] = {
    Family.IPV4: "icmp-port-unreachable", Family.IPV6: "icmp6-port-unreachable"
}  # fmt: skip

CONNTRACK_STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")  # in printed order
ADDRESS_TYPES = ("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE",
                 "PROHIBIT", "THROW", "NAT", "XRESOLVE")  # fmt: skip
TCP_FLAGS: Mapping[str, int] = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32}
FULL_MASK: Mapping[Family, str] = {Family.IPV4: "255.255.255.255", Family.IPV6: ":".join(["ffff"] * 8)}

VERDICTS = frozenset({"ACCEPT", "DROP", "RETURN"})
# targets after which the packet goes on to the next rule, so that not knowing them changes no verdict
PASSING_TARGETS = frozenset({"LOG", "NFLOG", "ULOG", "TRACE", "TCPMSS", "CHECKSUM", "CLASSIFY", "DSCP", "TOS", "TTL",
                             "HL", "AUDIT", "LED", "IDLETIMER", "RATEEST", "SECMARK", "CONNSECMARK", "ECN",
                             "TCPOPTSTRIP", "HMARK"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a module: its printed name, how many values follow it, and how iptables-save writes the value."""

    name: str
    values: int = 1
    quote: str = "raw"  # "raw"; "string": quoted where needed; "always"


def _options(text: str) -> dict[str, Option]:
    """Read `--a --b=0 --c=2 --long|--alias --text"`: `=N` values (default 1), a final `"` quotes, `""` always."""
    found: dict[str, Option] = {}
    for word in text.split():
        quote = "always" if word.endswith('""') else "string" if word.endswith('"') else "raw"
        names, _, values = word.rstrip('"').partition("=")
        first, *aliases = names.split("|")
        option = Option(first, int(values or "1"), quote)
        for name in (first, *aliases):
            found[name] = option
    return found


_PORTS = "--sport|--source-port --dport|--destination-port "
_NAT = "--random=0 --random-fully=0 --persistent=0"

MATCH_OPTIONS: Mapping[str, Mapping[str, Option]] = {  # in the order in which iptables-save prints them
    "tcp": _options(_PORTS + "--tcp-option --tcp-flags=2 --syn=0"),
    "udp": _options(_PORTS), "udplite": _options(_PORTS),
    "sctp": _options(_PORTS + "--chunk-types=2"),
    "dccp": _options(_PORTS + "--dccp-types --dccp-option"),
    "multiport": _options("--sports|--source-ports --dports|--destination-ports --ports"),
    "comment": _options('--comment"'),
    "mark": _options("--mark"), "connmark": _options("--mark"),
    "statistic": _options("--mode --probability --every --packet"),
    "recent": _options("--set=0 --rcheck=0 --update=0 --remove=0 --seconds --reap=0 --hitcount --rttl=0 --name --mask"
                       " --rsource=0 --rdest=0"),
    "addrtype": _options("--src-type --dst-type --limit-iface-in=0 --limit-iface-out=0"),
    "conntrack": _options("--ctstate --ctproto --ctorigsrc --ctorigdst --ctreplsrc --ctrepldst --ctorigsrcport"
                          " --ctorigdstport --ctreplsrcport --ctrepldstport --ctstatus --ctexpire --ctdir"),
    "state": _options("--state"),
    "nfacct": _options("--nfacct-name"),
    "set": _options("--match-set|--set=2 --return-nomatch=0 --update-counters=0 --update-subcounters=0 --packets-eq"
                    " --packets-lt --packets-gt --bytes-eq --bytes-lt --bytes-gt"),
    "rpfilter": _options("--loose=0 --validmark=0 --accept-local=0 --invert=0"),
    "icmp": _options("--icmp-type"), "icmp6": _options("--icmpv6-type"),
    "limit": _options("--limit --limit-burst"),
    "physdev": _options("--physdev-is-in=0 --physdev-in --physdev-is-out=0 --physdev-out --physdev-is-bridged=0"),
    "owner": _options("--uid-owner --gid-owner --socket-exists=0 --suppl-groups=0"),
    "iprange": _options("--src-range --dst-range"), "mac": _options("--mac-source"),
    "tos": _options("--tos"), "dscp": _options("--dscp --dscp-class"), "length": _options("--length"),
    "ttl": _options("--ttl-eq --ttl-lt --ttl-gt"), "hl": _options("--hl-eq --hl-lt --hl-gt"),
    "pkttype": _options("--pkt-type"), "cpu": _options("--cpu"), "helper": _options('--helper"'),
    "connlimit": _options("--connlimit-upto --connlimit-above --connlimit-mask --connlimit-saddr=0 --connlimit-daddr=0"),  # noqa: E501
    "hashlimit": _options("--hashlimit-upto --hashlimit-above --hashlimit-burst --hashlimit-mode --hashlimit-name"
                          " --hashlimit-htable-size --hashlimit-htable-max --hashlimit-htable-gcinterval"
                          " --hashlimit-htable-expire --hashlimit-srcmask --hashlimit-dstmask --hashlimit-rate-match=0"),  # noqa: E501
    "string": _options('--string" --hex-string" --algo --from --to --icase=0'),
    "u32": _options('--u32""'), "bpf": _options('--bytecode"" --object-pinned'),
    "socket": _options("--transparent=0 --nowildcard=0 --restore-skmark=0"),
    "cgroup": _options("--path --cgroup"), "esp": _options("--espspi"), "ah": _options("--ahspi"),
    "devgroup": _options("--src-group --dst-group"), "realm": _options("--realm"), "tcpmss": _options("--mss"),
    "time": _options("--timestart --timestop --monthdays --weekdays --datestart --datestop --kerneltz=0"
                     " --contiguous=0"),
    "connbytes": _options("--connbytes --connbytes-mode --connbytes-dir"), "quota": _options("--quota"),
    "policy": _options("--dir --pol --strict=0 --reqid --spi --proto --mode --tunnel-dst --tunnel-src --next=0"),
}  # fmt: skip

TARGET_OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "REJECT": _options("--reject-with"),
    "MARK": _options("--set-xmark --set-mark --or-mark --and-mark --xor-mark"),
    "DNAT": _options("--to-destination " + _NAT), "SNAT": _options("--to-source " + _NAT),
    "MASQUERADE": _options("--to-ports --random=0 --random-fully=0"),
    "REDIRECT": _options("--to-ports --random=0"),
    "LOG": _options('--log-prefix" --log-level --log-tcp-sequence=0 --log-tcp-options=0 --log-ip-options=0 --log-uid=0'
                    " --log-macdecode=0"),
    "NFLOG": _options('--nflog-prefix" --nflog-group --nflog-size --nflog-range --nflog-threshold'),
    "CONNMARK": _options("--save-mark=0 --restore-mark=0 --set-xmark --set-mark --or-mark --and-mark --xor-mark"
                         " --nfmask --ctmask --mask"),
    "CT": _options('--notrack=0 --helper --timeout --ctevents --expevents --zone-orig --zone-reply --zone'),
    "NOTRACK": {}, "TRACE": {}, "QUEUE": {},
    "NFQUEUE": _options("--queue-num --queue-balance --queue-bypass=0 --queue-cpu-fanout=0"),
    "TCPMSS": _options("--set-mss --clamp-mss-to-pmtu=0"),
    "SET": _options("--add-set=2 --del-set=2 --map-set=2 --exist=0 --timeout --map-mark=0 --map-prio=0 --map-queue=0"),
    "NETMAP": _options("--to"), "CHECKSUM": _options("--checksum-fill=0"), "CLASSIFY": _options("--set-class"),
    "DSCP": _options("--set-dscp --set-dscp-class"), "TOS": _options("--set-tos --and-tos --or-tos --xor-tos"),
    "TTL": _options("--ttl-set --ttl-dec --ttl-inc"), "HL": _options("--hl-set --hl-dec --hl-inc"),
    "TPROXY": _options("--on-port --on-ip --tproxy-mark"), "AUDIT": _options("--type"),
    "TEE": _options("--gateway"), "ULOG": _options('--ulog-nlgroup --ulog-prefix" --ulog-cprange --ulog-qthreshold'),
    "IDLETIMER": _options("--timeout --label --alarm=0"), "SECMARK": _options("--selctx"),
    "CONNSECMARK": _options("--save=0 --restore=0"), "ECN": _options("--ecn-tcp-remove=0"),
    "TCPOPTSTRIP": _options("--strip-options"), "SYNPROXY": _options("--mss --wscale --timestamp=0 --sack-perm=0"),
    "CLUSTERIP": {}, "HMARK": {}, "LED": {}, "RATEEST": {}, "DNPT": _options("--src-pfx --dst-pfx"),
    "SNPT": _options("--src-pfx --dst-pfx"),
}  # fmt: skip
MODELLED_TARGETS = frozenset({"REJECT", "MARK", "DNAT", "SNAT", "MASQUERADE", "REDIRECT"})
# the match that `-p PROTOCOL` brings along when one of its options is used without `-m`
PROTOCOL_MODULES: Mapping[int, str] = {
    1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 50: "esp", 51: "ah", 58: "icmp6", 132: "sctp", 136: "udplite"
}  # fmt: skip
