"""Pushing a batch through a model and measuring what arrives."""
