"""The loop that samples videos, filters them, measures their EF and replaces what is refused."""
