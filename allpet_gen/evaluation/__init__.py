"""How good is a generator: distances between distributions, copies of training data, errors against a known truth.

`features` and `distribution` compare populations, `memorisation` looks for copies, `classifier` names tracer and
region. Every room is imported by its own name; importing this package loads nothing.
"""
