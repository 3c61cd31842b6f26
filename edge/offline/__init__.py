"""The offline twins of the live loop: the same code over recordings and manifests."""
