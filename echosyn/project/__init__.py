"""Commands around the graph: begin a project, run its stages, check the machine."""
