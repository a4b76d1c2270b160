"""Estimators times batches: next-token distributions as targets, draws and measures of them."""
