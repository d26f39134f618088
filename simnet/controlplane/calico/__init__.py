"""Calico: addresses for pods (IPAM) and the routes that its BIRD and Felix leave on every node."""
