"""A host's iptables rules as values (`ruleset`), and their text form (`parser`, `printer`)."""
