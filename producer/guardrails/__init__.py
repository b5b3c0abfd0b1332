"""What neither prompts nor answers may hold, and the policy that decides on requests."""
