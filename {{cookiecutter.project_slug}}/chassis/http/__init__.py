"""What holds for every request: middleware, errors, streams, pages of lists, the log."""
