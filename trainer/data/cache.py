"""Prepared faces of a manifest, packed into one uint8 array on disk."""

import hashlib
import os

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from contract.errors import UserError
from contract.faces import FaceInput, prepare_face, read_image
from contract.manifest import Manifest


def packed_faces(manifest: Manifest, face: FaceInput) -> NDArray[np.uint8]:
    """Every row's image as the model sees it, `N×size×size×C`, in the manifest's order.

    Made once per manifest content and input, kept in `.cache` beside the manifest, and mapped from
    disk. The images are whole faces (no detector). Raises `UserError` naming a row's image that
    cannot be decoded.
    """
    key = hashlib.sha256(f"{manifest.sha256} {face.model_dump_json()}".encode()).hexdigest()[:20]
    file = manifest.file.parent / ".cache" / f"faces-{key}.npy"
    shape = (len(manifest.rows), face.size, face.size, face.channels)
    if file.is_file():
        stored = np.load(file, mmap_mode="c", allow_pickle=False)  # "c": torch wants it writable
        if stored.shape == shape:
            return np.asarray(stored)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Straight to disk: a large set at 224 px is more than memory holds.
    unfinished = file.with_suffix(f".{os.getpid()}.part")
    try:
        faces = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
        for position, row in enumerate(tqdm(manifest.rows, "packing", unit="face", disable=None)):
            image = read_image(manifest.path(row))
            if image is None:
                raise UserError(
                    f"{manifest.place(row)} cannot be decoded; restore the image or remove the row"
                )
            faces[position] = prepare_face(image, face)
        faces.flush()
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return packed_faces(manifest, face)
