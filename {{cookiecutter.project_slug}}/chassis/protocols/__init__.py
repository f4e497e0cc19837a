"""The agents for clients that speak a protocol of their own."""
