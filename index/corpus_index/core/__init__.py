"""Where contexts occur: mapped files, arrays derived from them, matching. No estimator is known here."""
