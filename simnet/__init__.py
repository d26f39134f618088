"""simnet: a discrete-event traffic simulator of Kubernetes service networking."""

__version__ = "0.1.0"
