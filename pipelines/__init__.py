"""One thin file per stage: read params and inputs, call echosyn, write outputs."""
