"""A new connection's way through the cluster and its reply's way back, for a whole batch at once."""
