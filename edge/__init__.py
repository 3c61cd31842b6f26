"""The program on the box. Never imports torch or pandas."""

# Before any file here imports an inference runtime: it sets what they read at import.
import runtime as runtime
