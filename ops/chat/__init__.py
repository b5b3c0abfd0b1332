"""`inferctl chat --interactive`: a conversation, and how it is typed."""
