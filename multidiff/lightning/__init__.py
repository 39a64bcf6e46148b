"""Training through Lightning; imported only by training and the command line."""
