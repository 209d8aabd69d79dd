"""What the numbers of the audits must reach before a release."""
