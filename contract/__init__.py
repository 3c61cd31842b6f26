"""What every stage agrees on: expressions, face crop, bundle, manifest, telemetry, metrics.

Imports numpy, OpenCV and pydantic only, and does no I/O beyond its own files.
"""
