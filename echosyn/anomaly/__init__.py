"""Strange videos: anomalies made of real ones, the task that learns to find them, the gate."""
