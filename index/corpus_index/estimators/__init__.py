"""Counts to probabilities, for one context: the estimators, how one is named, and how one is fitted."""
