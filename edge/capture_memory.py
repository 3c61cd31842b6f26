"""Frames in memory that two processes share.

A slot belongs to one process at a time: the reader of the camera writes it, announces it over a
socket, and writes it again only after it was given back over the same socket. So a frame is never
seen half written, even when its writer is killed in the middle: it was not announced then.
"""

import mmap
import os

import numpy as np

from contract.faces import Image


class FrameMemory:
    """`slots` rooms of `slot_bytes` each, in anonymous memory.

    It has no name in the file system, so nothing is left behind however the processes end: it is
    given back with the last of them.
    """

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        """Map the memory behind `fd`, which may be closed afterwards.

        Raises `ValueError` if it is smaller than it should be.
        """
        self.slots, self.slot_bytes = slots, slot_bytes
        self._bytes = mmap.mmap(fd, slots * slot_bytes)

    @classmethod
    def create(cls, slots: int, frame_bytes: int) -> tuple["FrameMemory", int]:
        """New memory for frames of at most `frame_bytes`, and its file descriptor."""
        slot_bytes = -(-frame_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("frames")
        os.ftruncate(fd, slots * slot_bytes)
        return cls(fd, slots, slot_bytes), fd

    def write(self, slot: int, image: Image) -> None:
        """Copy a frame, uint8 of any shape that fits, into a slot."""
        np.copyto(self._view(slot, image.shape), image)

    def read(self, slot: int, shape: tuple[int, ...]) -> Image:
        """A copy of the frame in a slot."""
        return self._view(slot, shape).copy()

    def _view(self, slot: int, shape: tuple[int, ...]) -> Image:
        if not 0 <= slot < self.slots:
            raise ValueError(f"there is no slot {slot} of {self.slots}")
        return np.ndarray(shape, np.uint8, buffer=self._bytes, offset=slot * self.slot_bytes)
