"""Tests of your agents, tables and endpoints. Those of the chassis are in chassis/tests."""
