"""What stage files share beyond their command line."""
