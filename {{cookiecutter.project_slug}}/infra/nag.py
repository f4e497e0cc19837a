"""Exceptions from the rules of cdk-nag, each with its reason, where the thing is made."""

from collections.abc import Mapping

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct


def accept(construct: IConstruct, reasons: Mapping[str, str]) -> None:
    """Accept findings for a construct and what is in it.

    Args:
        construct: what they are found in.
        reasons: the rule, and the detail in brackets if it names one, with the reason why it doesn't hold here.
    """
    for rule, reason in reasons.items():
        Validations.of(construct).acknowledge(Acknowledgment(id=f"AwsSolutions-{rule}", reason=reason))
