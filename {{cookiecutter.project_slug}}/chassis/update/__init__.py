"""Bringing over what is new in the template: ``python -m chassis update``.

The template is rendered twice with this workspace's answers, as it was and as it is now. Their difference is merged with
git's three-way merge into what is here. Standard library and git only, so that it works where nothing is installed.
"""
