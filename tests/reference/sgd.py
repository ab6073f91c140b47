"""PyTorch's SGD with momentum and weight decay, and its cosine schedule stepped once per epoch (section 4)."""

import math

import numpy as np


def learning_rate(epoch, epochs, lr):
    """lr_e = lr * (1 + cos(pi e / E)) / 2, for e = 0 .. E-1: the whole rate in the first epoch."""
    return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def step(parameters, gradients, velocity, lr, momentum=0.9, weight_decay=2e-4):
    """One step: g <- g + wd p; v <- momentum v + g (v = g at the first step); p <- p - lr v.

    Args:
      parameters: dict of arrays.
      gradients: dict of arrays of the same shapes.
      velocity: dict of arrays of the same shapes, or None before the first step.
      lr: this step's rate.
      momentum: dimensionless.
      weight_decay: added to the gradient, before the momentum.

    Returns:
      (new parameters, new velocity); the arguments are left as they are.
    """
    new_parameters, new_velocity = {}, {}
    for name in parameters:
        parameter = np.asarray(parameters[name], np.float64)
        gradient = np.asarray(gradients[name], np.float64) + weight_decay * parameter
        new_velocity[name] = gradient if velocity is None else momentum * velocity[name] + gradient
        new_parameters[name] = parameter - lr * new_velocity[name]
    return new_parameters, new_velocity


def train(parameters, gradient_of, epochs, steps_per_epoch, lr=0.05, momentum=0.9, weight_decay=2e-4):
    """Trains one task with a fresh velocity.

    Args:
      parameters: dict of arrays, the start.
      gradient_of: (parameters, number of the step from 0) -> dict of gradients.
      epochs: E.
      steps_per_epoch: steps that share an epoch's rate.
      lr: the first epoch's rate.
      momentum: dimensionless.
      weight_decay: added to the gradient.

    Returns:
      The list of the parameters after each step.
    """
    velocity, trajectory = None, []
    for epoch in range(epochs):
        rate = learning_rate(epoch, epochs, lr)
        for _ in range(steps_per_epoch):
            gradients = gradient_of(parameters, len(trajectory))
            parameters, velocity = step(parameters, gradients, velocity, rate, momentum, weight_decay)
            trajectory.append(parameters)
    return trajectory
