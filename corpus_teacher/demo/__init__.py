"""The demo: corpus, index, three students and a page, in one command."""
