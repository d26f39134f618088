"""Where a packet goes next: longest prefix match, ECMP and neighbours, for a whole batch at once."""
