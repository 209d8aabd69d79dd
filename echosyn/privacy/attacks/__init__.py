"""What an attacker would try on a release: planted copies, membership inference, a canary."""
