"""The thin client, with a supervisor that says what the test tells it to."""
