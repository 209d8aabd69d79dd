"""A page on this machine that makes one synthetic video and judges it as the stages do."""
