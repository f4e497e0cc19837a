"""The chassis' own tests, for those who change it and after an update: `python -m chassis check` runs them."""

import pytest

pytest.register_assert_rewrite("chassis.testing")
