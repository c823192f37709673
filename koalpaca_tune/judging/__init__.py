"""Another model that gives points to answers, behind an endpoint."""
