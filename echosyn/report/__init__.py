"""The page that a data steward reads, and the pictures on it."""
