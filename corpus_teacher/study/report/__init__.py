"""The report of a study: reads rows, never trains."""
