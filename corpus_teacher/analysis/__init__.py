"""What an index says, as plain data: a path and options in, a frozen answer out."""
