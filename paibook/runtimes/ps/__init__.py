"""The parameter server: workers push gradients to tables sharded over servers, and pull weights.

After Li et al., "Scaling Distributed Machine Learning with the Parameter Server", OSDI 2014.
"""
