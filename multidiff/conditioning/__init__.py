"""What samples are conditioned on, in terms that several domains share."""
