"""Importers, splits, the packed cache and augmentation."""
