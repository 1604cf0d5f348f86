"""Stands in for flash-attn, which builds with CUDA only. OpenRLHF imports it; padded batches never call it."""
