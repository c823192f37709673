"""What a run's own trail says: watched while it is made, diagnosed when it is there."""
