"""Whether a video model uses its condition, and what its answers to a condition say of the heart."""
