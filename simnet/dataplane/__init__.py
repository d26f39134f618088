"""What do those tables do to each packet, and when does it leave each link? Numpy kernels."""
