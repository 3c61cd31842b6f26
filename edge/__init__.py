"""The program on the box. Never imports torch or pandas."""
