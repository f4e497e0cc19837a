"""Tests of autogenerate and of the comparison of catalogues, in one process and on one server."""
