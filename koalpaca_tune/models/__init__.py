"""Loading a base, proving how it was quantised, attaching an adapter."""
