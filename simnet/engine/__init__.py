"""When does each thing happen? The only package that imports simpy."""
