"""Training without a framework: objective, time densities, weightings, averages of weights."""
