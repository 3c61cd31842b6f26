"""Losses: pure functions of tensors, each tested against a value worked out independently."""
