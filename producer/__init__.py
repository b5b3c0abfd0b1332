"""What publishes work: the edge, which speaks the OpenAI API over HTTP."""
