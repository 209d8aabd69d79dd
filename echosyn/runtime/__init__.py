"""What stages share to run: settings, files, progress, processes.

Nothing here decides a byte that a stage writes, so no stage of dvc.yaml depends on it.
"""
