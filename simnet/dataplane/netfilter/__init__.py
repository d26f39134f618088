"""What iptables rules do to packets: rule sets compiled to a program, and a vector machine that runs it.

`compile_program` (compiler), `run_chain` and `run_hook` (executor), `exact_outcomes` (outcomes), over `PacketColumns`
(packets). docs/models/netfilter.md describes instructions, draws and what is left out.
"""
