"""The command line: the only place, with the demo, that knows typer, rich and options."""
