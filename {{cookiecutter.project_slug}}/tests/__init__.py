"""Tests of the workspace, through its real parts."""
