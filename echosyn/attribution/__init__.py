"""Whether a video model uses its condition, and masks of the ventricle that its answers give."""
