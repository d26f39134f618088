"""What the Kubernetes control plane makes of objects: scheduled pods, endpoint slices, allocated addresses and
ports.
"""
