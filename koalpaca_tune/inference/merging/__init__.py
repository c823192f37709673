"""An adapter put into its base, one tensor at a time, and the result held against the unmerged pair."""
